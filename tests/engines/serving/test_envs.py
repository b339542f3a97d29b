"""The environments of the engines: what builds them, and the stand-in that takes the place of CUDA's kernels."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engines.serving import conftest
from tests.engines.serving.envs import STANDINS, VARIABLES, missing, python_of
from tests.shared import shared

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "engine-env"
OURS = {"numpy", "pyyaml", "pydantic", "safetensors", "rich", "typer", "peft", "numba"}
SERVER = {"soundfile"}  # imported by SGLang's HTTP server, and not by its engine

# In place of Python: `-m venv FOLDER` makes a folder whose python is this script; pip's arguments are written down.
FAKE = """#!/usr/bin/env bash
if [ "$2" = venv ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
else
  printf '%s\\n' "$*" >>"$LOG"
  ! [[ "$*" == *"${FAIL:-nothing}"* ]]
fi
"""


class Script:
    """`scripts/engine-env` with a Python that installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.envs = folder, folder / "log", folder / "envs"
        (folder / "python").write_text(FAKE)
        (folder / "python").chmod(0o755)

    def __call__(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        given = {
            "PYTHON": str(self.folder / "python"),
            "LOG": str(self.log),
            "MEZO_ENGINE_ENVS": str(self.envs),
        }
        return subprocess.run(
            [SCRIPT, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **given, **environment},
        )

    def installed(self) -> list[list[str]]:
        """The arguments of each call of pip since the last look, without the options of all of them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        common = "-m pip --disable-pip-version-check --quiet "
        assert all(line.startswith(common) for line in lines)
        return [line.removeprefix(common).split() for line in lines]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


@pytest.mark.parametrize("engine", VARIABLES)
def test_an_environment_is_built_once(engine: str, script: Script) -> None:
    first = script(engine)
    assert (first.returncode, first.stdout) == (0, f"{script.envs / engine}/bin/python\n")
    assert f"building the environment of {engine}" in first.stderr
    assert script.installed()[0] == ["install", "torch==2.13.0"]
    again = script(engine)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
    assert script.installed() == []
    (script.envs / engine / ".recipe").write_text("an older one\n")
    assert script(engine).returncode == 0
    assert len(script.installed()) > 1


@pytest.mark.parametrize("engine", VARIABLES)
def test_a_failed_installation_is_told_and_begun_anew(engine: str, script: Script) -> None:
    failed = script(engine, FAIL="peft")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"engine-env: installing {engine} failed")
    assert failed.stdout == ""
    assert not (script.envs / engine / ".recipe").exists()
    script.installed()
    assert script(engine).returncode == 0
    assert script.installed()[0] == ["install", "torch==2.13.0"]


def test_nothing_but_an_environment_is_replaced(script: Script) -> None:
    mine = script.folder / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    refused = script("vllm", str(mine))
    assert refused.returncode == 2
    assert "is no virtual environment" in refused.stderr
    assert (mine / "letter").read_text() == "dear"
    assert script("vlm").returncode == 2


@pytest.mark.parametrize("engine", VARIABLES)
def test_the_recipes_are_those_that_were_seen_to_work(engine: str, script: Script) -> None:
    """The commands of the notes that say how both engines were seen running; and what mezo itself needs."""
    section = {"sglang": "## SGLang", "vllm": "## vLLM"}[engine]
    text = shared("engines.md").read_text().partition(section)[2].partition("\n## ")[0]
    line = next(line for line in text.splitlines() if "`pip install" in line)
    wanted = [shlex.split(command) for command in re.findall(r"`pip ((?:un)?install [^`]*)`", line)]
    if engine == "sglang":  # its dependencies are listed in the line itself
        listed = line.partition("by name: ")[2].partition(";")[0]
        wanted.insert(2, ["install", *shlex.split(listed)])
    assert script(engine).returncode == 0
    found = script.installed()
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        mine = ["-y" if word == "--yes" else word for word in mine]
        assert set(theirs) <= set(mine)
        assert set(mine) - set(theirs) <= OURS | SERVER


def test_where_the_engines_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEZO_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("MEZO_ENGINE_ENVS", str(tmp_path))
    assert python_of("vllm") is None
    assert "scripts/engine-env vllm" in str(missing("vllm"))
    (tmp_path / "vllm" / "bin").mkdir(parents=True)
    (tmp_path / "vllm" / "bin" / "python").touch()
    assert python_of("vllm") is None  # an installation that was cut short
    (tmp_path / "vllm" / ".recipe").touch()
    assert python_of("vllm") == tmp_path / "vllm" / "bin" / "python"
    assert missing("vllm") is None
    monkeypatch.setenv("MEZO_VLLM_PYTHON", str(tmp_path / "none"))
    assert missing("vllm") == f"MEZO_VLLM_PYTHON={tmp_path / 'none'}: there is no such file"


@pytest.mark.parametrize(("ci", "outcome"), [("", "Skipped"), ("1", "Failed")])
def test_an_engine_that_is_missing_fails_in_ci_alone(
    ci: str, outcome: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("MEZO_VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(BaseException, match="there is no such file") as told:
        conftest.need("vllm")
    assert type(told.value).__name__ == outcome


# A torch of a few lines, for what the stand-in looks at before anything else.
TORCH = """
import sys, types
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_available=lambda: {gpu})
torch.tensor = torch.empty = torch.zeros = lambda *shape, **options: options
torch.Tensor = type("Tensor", (), {{}})
"""


def import_standin(gpu: bool, then: str) -> "subprocess.CompletedProcess[str]":
    code = TORCH.format(gpu=gpu) + "import sgl_kernel\n" + then
    environment = {**os.environ, "PYTHONPATH": str(STANDINS)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )


def test_the_standin_refuses_to_load_beside_a_gpu() -> None:
    found = import_standin(True, "")
    assert found.returncode != 0
    assert "ImportError: sgl_kernel: this is the stand-in of mezo's tests" in found.stderr


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="beside a GPU it refuses to load")
def test_the_standin_has_no_kernels() -> None:
    found = import_standin(False, "from sgl_kernel.elementwise import silu_and_mul\nsilu_and_mul()")
    assert found.returncode != 0
    assert "NotImplementedError: sgl_kernel.elementwise.silu_and_mul: the stand-in" in found.stderr
    found = import_standin(False, "import torch\nassert torch.empty(3, pin_memory=True) == {}")
    assert found.returncode == 0, found.stderr


def test_the_standin_is_on_no_path_of_the_package() -> None:
    """It is for children of tests: nothing that is installed or run names it."""
    for folder in ("src", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert "standins" not in path.read_text(errors="ignore"), path
