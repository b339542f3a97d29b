"""Plugins of installed packages: found by the names that their packages declare, listed, recorded, missed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.resumed import base

from mezo.util import plugins

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
ROOT = Path(__file__).parents[2]
DECLARED = {
    "mezo.estimators": "twice = shelf.estimator:OneSidedTwice",
    "mezo.optimizers": "inverse-time = shelf.optimizer:InverseTime",
    "mezo.objectives": "margin = shelf.objective:Margin",
    "mezo.tasks": "letters = shelf.task:Letters",
    "mezo.metrics": "error-rate = shelf.metric:ERROR_RATE",
    "mezo.tuning": "gains = shelf.tuning:gains",
    "mezo.formats": ".labelled = shelf.data_format:lines",
    "mezo.engines": "local = shelf.engine:start",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` of a package with the plugins in it leaves."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLES, folder / "shelf")
    (folder / "shelf" / "__init__.py").touch()
    described = folder / "mezo_shelf-1.2.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: mezo-shelf\nVersion: 1.2\n")
    (described / "entry_points.txt").write_text("".join(f"[{g}]\n{line}\n" for g, line in DECLARED.items()))
    return folder


def mezo(site: Path | None, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    paths = [*([str(site)] if site else []), str(ROOT / "src"), str(ROOT)]
    variables: Mapping[str, str] = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "mezo", *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


def test_every_kind_has_a_group() -> None:
    assert {kind.group for kind in plugins.KINDS.values()} == DECLARED.keys()


@pytest.mark.slow
def test_they_are_listed_and_train_and_are_missed(site: Path, tmp_path: Path) -> None:
    shown = mezo(site, "train", "--help", cwd=tmp_path).stdout + mezo(site, "tasks", cwd=tmp_path).stdout
    names = [line.partition(" =")[0] for line in DECLARED.values()]
    assert [name for name in names if name not in shown] == []

    base(tmp_path / "base")
    (tmp_path / "rows.labelled").write_text("".join(f"{i % 2} {'hg'[i % 2]}a\n" for i in range(8)))
    common = ["train", "--model", "base", "--data", "rows.labelled", "--batch", "3", "--steps", "3"]
    chosen = ["--estimator", "twice(side=-1.0)", "--optimizer", "inverse-time", "--objective", "margin"]
    chosen += ["--task", "letters", "--metrics", "error-rate", "--tuning", "gains"]
    done = mezo(site, *common, *chosen, "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = mezo(site, *common, "--task", "letters", "--engine", "local", "--tuning", "lora", "--output", "lora", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr

    done = mezo(site, "replay", "run", "--output", "again", cwd=tmp_path)  # its package says what it is for
    assert done.returncode == 0, done.stderr
    saved = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "again")]
    assert saved[0] == saved[1]

    done = mezo(None, "replay", "run", "--output", "third", cwd=tmp_path)
    assert done.returncode == 2
    assert "estimator 'twice': no installed package has it" in done.stderr
    assert "the run had it from mezo-shelf 1.2" in done.stderr
    assert mezo(None, "trajectory", "show", "run", cwd=tmp_path).returncode == 0

    with (site / "shelf" / "tuning.py").open("a") as file:
        file.write("\n# the next version\n")
    done = mezo(site, "replay", "run", "--output", "third", cwd=tmp_path)
    assert done.returncode == 2
    assert "source of tuning gains: the run has" in done.stderr


def test_a_broken_package_keeps_nothing_else_from_working(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    described = tmp_path / "broken-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[mezo.tasks]\nbad = no_such_module_of_it:Task\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.installed.cache_clear()
    try:
        from mezo.cli import main

        assert main(["tasks"]) == 0
        shown = capsys.readouterr().out
        assert "bad\n  broken   task 'bad': cannot import 'no_such_module_of_it'" in shown
        assert "sst2" in shown
    finally:
        monkeypatch.undo()
        plugins.installed.cache_clear()
