"""`python -m benchmarks` finds its scripts, and what it starts imports the same code from any folder."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import PROGRAM, SCRIPTS, main
from benchmarks.processes import environment

import benchmarks
import mezo


def test_a_child_imports_the_code_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = "import os, benchmarks, mezo; print(benchmarks.__file__, mezo.__file__, os.environ['MARK'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(MARK="1"), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [benchmarks.__file__, mezo.__file__, "1"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)  # which main sets
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the soak sets
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: {PROGRAM} {name} " in capsys.readouterr().out
    assert importlib.import_module(f"benchmarks.{name.replace('-', '_')}").__doc__


def test_help_lists_measurements_and_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: {PROGRAM} " in printed
    assert {"step", "scale", *SCRIPTS} <= set(printed.split())
