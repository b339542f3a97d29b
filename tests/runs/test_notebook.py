"""What a notebook's cell shows of a run, and that no plot backend ends one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import finished
from tests.resumed import base, config_for, trainer

from mezo.events import EvalRecord, Observer, StepRecord, WarningObserver
from mezo.runs.notebook import NotebookObserver, default_observer, in_notebook

IPython = pytest.importorskip("IPython")


class Notes(Observer):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


class Kernel:
    """Stands where a notebook's kernel stands in its shell."""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a cell is sent, by IPython's own shell and display machinery."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.display_pub = publisher = CapturingDisplayPublisher()
    monkeypatch.setattr(shell, "kernel", Kernel(), raising=False)
    yield publisher.outputs
    InteractiveShell.clear_instance()


def run(observer: NotebookObserver, steps: int) -> None:
    observer.on_start(0, steps, "llama, lora <b>")
    observer.on_eval(EvalRecord(0, "validation", 0.5, 0.7, 100, 1.0, {"accuracy": 0.5}))
    for number in range(steps):
        observer.on_step(StepRecord(number, 0.7, 1e-3, (1.0,), 0.1, 10))
    observer.on_eval(EvalRecord(steps, "validation", 0.75, 0.6, 100, 1.0, {"accuracy": 0.75}))
    observer.on_end()


def test_the_cell_is_redrawn_and_ends_in_a_picture(shown: list[dict[str, Any]]) -> None:
    assert in_notebook()
    observer = default_observer()
    assert isinstance(observer, NotebookObserver)
    run(observer, 40)
    first, *updates, picture = shown
    assert "llama, lora &lt;b&gt;" in first["data"]["text/html"]
    assert updates
    assert all(each["update"] and each["transient"] == first["transient"] for each in updates)
    last = updates[-1]["data"]["text/html"]
    assert "40 / 40" in last
    assert "value='1.0000'" in last
    assert "accuracy 75.0 %" in last
    assert picture["data"]["image/png"]


def test_elsewhere_notes_are_warnings() -> None:
    assert not in_notebook()
    assert isinstance(default_observer(), WarningObserver)


def test_the_repr_of_a_result_is_a_line(tmp_path: Path) -> None:
    import mezo

    assert repr(mezo.TrainResult(mezo.MeZOConfig(), None)) == "TrainResult(0 steps)"
    result = mezo.TrainResult(
        mezo.MeZOConfig(),
        tmp_path,
        [StepRecord(0, 0.7, 1e-3, (1.0,), 0.1, 10)],
        [EvalRecord(n, "validation", a, 1 - a, 100, 1.0, {"accuracy": a}) for n, a in ((0, 0.5), (1, 0.75))],
    )
    expected = f"1 steps, accuracy 50.0 % -> 75.0 %, loss 0.5000 -> 0.2500 on validation, {tmp_path}"
    assert repr(result) == f"TrainResult({expected})"


@pytest.mark.parametrize("backend", ["nonsense", "module://not_installed", "tkagg"])
def test_no_backend_ends_a_run(backend: str, tmp_path: Path) -> None:
    run = finished(tmp_path, tuning="lora")
    for picture in (run / "plots").iterdir():
        picture.unlink()
    command = [sys.executable, "-m", "mezo", "plot", str(run)]
    environment = {**os.environ, "MPLBACKEND": backend}
    environment.pop("DISPLAY", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "plots" / "overview.png").is_file()


def test_a_picture_that_cannot_be_drawn_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mezo.runs import plots

    def fails(run: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(plots, "write_plots", fails)
    heard = Notes()
    config = config_for(base(tmp_path / "base"), tuning="lora", num_steps=2)
    run = tmp_path / "run"
    trainer(config, output=run, artifacts=True, observer=heard).train()
    assert any("the plots were not drawn (no fonts)" in text for text in heard.texts)
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "summary.json").is_file()
