"""The programs in examples/ run, on a toy model, and end well."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from tests.resumed import base

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_runs(
    program: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(program), "--model", str(model), "--steps", "3"])
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a program that is started
    runpy.run_path(str(program), run_name="__main__")
    assert re.search(r"\d", capsys.readouterr().out)


@pytest.mark.slow
def test_the_loop_runs_on_the_built_in_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is loaded in another way than a folder."""
    monkeypatch.setattr(sys, "argv", ["own_loop.py", "--steps", "1"])
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    assert "step 0: loss" in capsys.readouterr().out


def test_each_is_in_the_list() -> None:
    listed = set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"} == listed
