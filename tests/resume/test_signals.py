"""SIGTERM, a full disk, a clock that jumps: the run stops as it says, and goes on to the same bytes."""

import errno
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base, config_for, resume, trainer, what_counts
from tests.tiers import mostly_slow

from mezo.cli import main
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.resume.recorder import Recorder, WriteFailed
from mezo.runs import event_log, metrics_file, trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.runs.snapshots import Snapshot
from mezo.util.interrupts import Forced, Interrupts, Terminated


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run comes to that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return what_counts(folder, trainer(config_for(model), output=folder).train())


class Signalling(Observer):
    def __init__(self, number: int, at: int) -> None:
        self.number, self.at = number, at

    def on_step(self, record: Any) -> None:
        if record.step + 1 == self.at:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("memory", mostly_slow(["materialize", "regenerate"], lambda m: m == "materialize"))
def test_sigterm_saves_what_it_takes_to_go_on(model: Path, tmp_path: Path, memory: str) -> None:
    config = config_for(model, memory=memory, snapshot_every=1000)
    whole = trainer(config, output=tmp_path / "whole").train()
    stopped = trainer(
        config, output=tmp_path / "run", observer=Signalling(signal.SIGTERM, 7), artifacts=True
    ).train()
    assert stopped.interrupted
    assert stopped.terminated
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left >= {"config.yaml", "events.jsonl", "metrics.jsonl", "snapshots", "trajectory.mezo"}
    assert not left & {"model", "plots", "README.md", "summary.json", ".lock"}  # none of what takes its time
    assert [p.name for p in (tmp_path / "run/snapshots").iterdir()] == ["step-00000007.safetensors"]
    result = resume(tmp_path / "run")
    assert [line["event"] for line in event_log.read(tmp_path / "run/events.jsonl")] == [
        "started",
        "terminated",
        "resumed",
        "finished",
    ]
    assert what_counts(tmp_path / "run", result) == what_counts(tmp_path / "whole", whole)


def test_ctrl_c_saves_everything_and_the_run_goes_on(
    model: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    stopped = trainer(
        config_for(model), output=tmp_path / "run", observer=Signalling(signal.SIGINT, 6)
    ).train()
    assert stopped.interrupted
    assert not stopped.terminated
    assert not trajectory.journal_of(tmp_path / "run/trajectory.mezo").exists()
    assert what_counts(tmp_path / "run", resume(tmp_path / "run")) == whole


def test_a_second_interrupt_makes_nothing_of_half_a_step(
    model: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = trainer(config_for(model), output=tmp_path / "run", artifacts=True)
    apply = running.engine.apply

    def impatient(update: Any) -> None:
        if update.step == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        apply(update)

    monkeypatch.setattr(running.engine, "apply", impatient)
    with pytest.raises(Forced):
        running.train()
    assert not (tmp_path / "run/model").exists()
    RunLock.check(tmp_path / "run")
    assert what_counts(tmp_path / "run", resume(tmp_path / "run")) == whole


def test_an_interrupt_waits_until_the_compiler_is_done() -> None:
    """LLVM calls Python back, and loses what is raised there or dies of it."""
    compiler: dict[str, Any] = {
        "__name__": "llvmlite.binding.x",
        "kill": lambda: signal.raise_signal(signal.SIGTERM),
    }
    exec(
        "def callback():\n    try:\n        kill()\n    except BaseException:\n        return False\n    return True",
        compiler,
    )

    def compiled() -> None:
        with Interrupts():
            assert compiler["callback"]()
            time.sleep(60)

    with pytest.raises(Terminated):
        compiled()


def test_an_interrupt_waits_until_a_snapshot_s_tensor_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors would turn it into a ValueError."""

    class File:
        def get_tensor(self, name: str) -> str:
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                raise ValueError("could not determine the shape") from None
            return name

    snapshot = Snapshot.__new__(Snapshot)
    snapshot._file = File()  # type: ignore[assignment]
    read: list[object] = []

    def restoring() -> None:
        with Interrupts():
            read.append(snapshot["x"])
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        restoring()
    assert read == ["x"]


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "stopped")]
)
def test_a_command_says_how_it_was_stopped(
    number: int, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no step is under way."""

    def stopped(*_: object, **__: object) -> None:
        with Interrupts():
            signal.raise_signal(number)

    monkeypatch.setattr("mezo.training.trainer.MeZOTrainer", stopped)
    assert main(["train", "--task", "demo", "--output", "none"]) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"mezo: {said}"


def test_the_handlers_of_before_come_back() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(Terminated), Interrupts() as interrupts, interrupts.held():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with Interrupts():
            signal.raise_signal(signal.SIGTERM)  # whoever has it ignored wants no end by it
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(
    "where",
    mostly_slow(
        ["journal", "metrics", "block", "snapshot", "weights"], lambda where: where in ("block", "metrics")
    ),
)
def test_a_full_disk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(trajectory, "BLOCK_RECORDS", 4)
    config = config_for(model, num_steps=9)
    whole = trainer(config, output=tmp_path / "whole").train()
    with pytest.MonkeyPatch.context() as patch:
        fill(patch, where)
        with pytest.raises(
            WriteFailed, match=r"No space left on device; the \d+ steps before are safe: make room"
        ):
            trainer(config, output=tmp_path / "run", artifacts=True).train()
    if where != "weights":
        assert not (tmp_path / "run/model").exists()
    found = trajectory.read(tmp_path / "run/trajectory.mezo").records
    assert (
        found.tolist() == trajectory.read(tmp_path / "whole/trajectory.mezo").records[: len(found)].tolist()
    )
    result = resume(tmp_path / "run")
    got, expected = what_counts(tmp_path / "run", result), what_counts(tmp_path / "whole", whole)
    assert {**got, "files": 0} == {**expected, "files": 0}


def fill(patch: pytest.MonkeyPatch, where: str) -> None:
    """The disk is full from some write on: half of it is written still."""
    full, write = OSError(errno.ENOSPC, "No space left on device"), metrics_file.write_all
    written = {"count": 0}

    def failing(file: Any, data: bytes) -> None:
        name, block = str(file.name), len(data) == 2 + 4 * 4 + 4
        kind = "metrics" if name.endswith(".jsonl") else "journal" if name.endswith(".journal") else "block"
        assert (kind == "block") == block or kind != "block"
        written["count"] += kind == where
        if kind == where and written["count"] >= (6 if where != "block" else 2):
            write(file, data[: len(data) // 2])
            raise full
        write(file, data)

    if where in ("journal", "metrics", "block"):
        for module in (metrics_file, trajectory):
            patch.setattr(module, "write_all", failing)
    else:
        from mezo.runs import snapshots
        from mezo.training import artifacts

        def none_left(*args: Any, **options: Any) -> None:
            raise full

        patch.setattr(
            *((snapshots, "save_file") if where == "snapshot" else (artifacts, "write_plots")), none_left
        )


def test_a_clock_that_jumps_changes_nothing_that_counts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(model, snapshot_every=None)
    whole = trainer(config, output=tmp_path / "whole").train()
    real, calls = time.monotonic, iter(range(10**9))
    for name in ("monotonic", "time"):  # back and forth by years
        monkeypatch.setattr(time, name, lambda: real() + (-1) ** next(calls) * 1e8)
    result = trainer(config, output=tmp_path / "run", observer=Signalling(signal.SIGTERM, 5)).train()
    assert result.terminated
    monkeypatch.setattr(time, "monotonic", lambda: -real())
    assert what_counts(tmp_path / "run", resume(tmp_path / "run")) == what_counts(tmp_path / "whole", whole)


def test_when_a_snapshot_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def recorder(every: int | None) -> Recorder:
        with RunLock.take(tmp_path) as lock:
            return Recorder(RunFolder(tmp_path), lock, every, None)

    assert [n for n in range(1, 10) if recorder(4).snapshot_is_due(n)] == [4, 8]
    assert not any(recorder(0).snapshot_is_due(n) for n in (1, 1000))
    by_itself = recorder(None)
    assert [n for n in (1, 999, 1000, 1001, 2000) if by_itself.snapshot_is_due(n)] == [1000, 2000]
    now[0] = 901.0
    assert by_itself.snapshot_is_due(7)


def test_two_trainers_do_not_write_one_run(model: Path, tmp_path: Path) -> None:
    first = trainer(config_for(model, num_steps=2), output=tmp_path / "run")
    second = trainer(config_for(model, num_steps=2), output=tmp_path / "run", overwrite=True)

    class Meanwhile(Observer):
        def on_step(self, record: Any) -> None:
            with pytest.raises(MezoError, match="is writing in this folder"):
                second.train()
            with pytest.raises(MezoError, match="is writing in this folder"):
                resume(tmp_path / "run")

    first.observer = Meanwhile()
    assert len(first.train().steps) == 2
    assert len(second.train().steps) == 2
