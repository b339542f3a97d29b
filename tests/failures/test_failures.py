"""A write that fails, or a SIGTERM, at every call by which a run changes its folder: a clear error, what was
written is whole, and the run goes on to the same bytes."""

import errno
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base, config_for, resume, trainer, what_counts

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.runs import event_log, metrics_file, snapshots, trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.training import artifacts
from mezo.util.interrupts import Terminated

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def config(model: Path, monkeypatch: pytest.MonkeyPatch) -> MeZOConfig:
    monkeypatch.setattr(trajectory, "BLOCK_RECORDS", 4)  # so that a short run seals blocks
    monkeypatch.setattr(
        artifacts, "write_plots", lambda run: run.plots.mkdir(exist_ok=True)
    )  # seconds of drawing
    return config_for(model, num_steps=6, snapshot_every=2, eval_every=3)


class Calls:
    """Counts the calls that change a folder below `within`; at the number `at`, `act` is called before the call
    (with half of what is to be written done, where it is a write), and at all later ones where `stays`."""

    def __init__(self, within: Path, at: int, act: Callable[[], None], *, stays: bool) -> None:
        self.within, self.at, self.act, self.stays = str(within), at, act, stays
        self.count = 0

    def passes(self) -> bool:
        """Whether this call is one of those to be acted upon."""
        self.count += 1
        return self.count == self.at or (self.stays and self.count > self.at > 0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            write = metrics_file.write_all

            def half(file: Any, data: bytes) -> None:
                if self.within in str(file.name) and self.passes():
                    write(file, data[: len(data) // 2])
                    self.act()
                    data = data[len(data) // 2 :]
                write(file, data)

            for module in (metrics_file, trajectory, event_log):
                patch.setattr(module, "write_all", half)
            for owner, name, place in (
                (os, "replace", 0),
                (os, "truncate", 0),
                (tempfile, "mkstemp", None),
                (Path, "write_text", 0),
                (Path, "write_bytes", 0),
                (Path, "mkdir", 0),
                (snapshots, "save_file", 1),
            ):
                patch.setattr(owner, name, self._around(getattr(owner, name), place))
            yield

    def _around(self, call: Callable[..., Any], place: int | None) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            where = options.get("dir") if place is None else args[place]
            if self.within in str(where) and self.passes():
                self.act()
            return call(*args, **options)

        return wrapped


def fail() -> None:
    raise FULL


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def broken_off(config: MeZOConfig, folder: Path, calls: Calls) -> str:
    """How the run ended: its error, or "" where it came to its end."""
    with calls.counted():
        try:
            ended = trainer(config, output=folder, artifacts=True).train()
        except MezoError as error:
            return str(error)
        except Terminated:
            return "terminated"
    return "terminated" if ended.terminated else ""


def whole(config: MeZOConfig, folder: Path) -> tuple[dict[str, Any], int]:
    """What the run comes to that nothing disturbs, and the calls that it takes."""
    calls = Calls(folder, 0, fail, stays=False)
    with calls.counted():
        result = trainer(config, output=folder, artifacts=True).train()
    return what_counts(folder, result), calls.count


def check(config: MeZOConfig, folder: Path, expected: dict[str, Any]) -> None:
    """What is there is a part of the whole, nobody holds it, and going on gives the whole."""
    RunLock.check(folder)
    started = (folder / "config.yaml").is_file()
    if (folder / "trajectory.mezo").is_file():
        found = trajectory.read(folder / "trajectory.mezo").records.tobytes()
        assert found in expected["records"]
        assert expected["records"].startswith(found)
    if started:
        result = resume(folder, artifacts=True)
    else:
        result = trainer(config, output=folder, artifacts=True).train()
    got = what_counts(folder, result)
    assert got == {key: value for key, value in expected.items() if key != "records"}


def sweep(
    config: MeZOConfig, tmp_path: Path, act: Callable[[], None], *, stays: bool, every: int
) -> list[str]:
    expected, count = whole(config, tmp_path / "whole")
    records = trajectory.read(tmp_path / "whole/trajectory.mezo").records.tobytes()
    ends = []
    for at in range(1, count + 1, every):
        folder = tmp_path / "run"
        ends.append(broken_off(config, folder, Calls(folder, at, act, stays=stays)))
        check(config, folder, {**expected, "records": records})
        shutil.rmtree(folder)
    return ends


def test_a_disk_that_is_full_at_some_writes(config: MeZOConfig, tmp_path: Path) -> None:
    ends = sweep(config, tmp_path, fail, stays=True, every=17)
    assert all("No space left on device" in end for end in ends)


@pytest.mark.slow
@pytest.mark.parametrize("stays", [True, False], ids=["from then on", "for a moment"])
def test_a_disk_that_is_full_at_every_write(config: MeZOConfig, tmp_path: Path, stays: bool) -> None:
    ends = sweep(config, tmp_path, fail, stays=stays, every=1)
    assert len(ends) > 30
    assert all("No space left on device" in end for end in ends)


def test_sigterm_at_some_writes(config: MeZOConfig, tmp_path: Path) -> None:
    assert "terminated" in sweep(config, tmp_path, terminate, stays=False, every=17)


@pytest.mark.slow
def test_sigterm_at_every_write(config: MeZOConfig, tmp_path: Path) -> None:
    ends = sweep(config, tmp_path, terminate, stays=False, every=1)
    assert ends.count("terminated") > len(ends) // 2


# ---------------------------------------------------------------- by the kernel, whoever writes


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond `size` bytes, as it would on a full disk: EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "size",
    [5_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 300, 1500, 2500, 12_000, 30_000))],
)
def test_a_file_that_cannot_grow(config: MeZOConfig, tmp_path: Path, size: int) -> None:
    expected, _ = whole(config, tmp_path / "whole")
    running = trainer(config, output=tmp_path / "run", artifacts=True)
    with files_of_at_most(size), pytest.raises(MezoError, match="File too large"):
        running.train()
    records = trajectory.read(tmp_path / "whole/trajectory.mezo").records.tobytes()
    check(config, tmp_path / "run", {**expected, "records": records})


# ---------------------------------------------------------------- the folder itself


class At(Observer):
    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_step(self, record: Any) -> None:
        if record.step + 1 == self.step:
            self.act()


@pytest.mark.parametrize("at", [1, 3])
def test_a_folder_that_is_removed_meanwhile(config: MeZOConfig, tmp_path: Path, at: int) -> None:
    folder = tmp_path / "run"
    running = trainer(config, output=folder, observer=At(at, lambda: shutil.rmtree(folder)))
    with pytest.raises(
        MezoError, match=f"^{folder}: is gone: it was moved or removed .* start the run again$"
    ):
        running.train()
    assert not folder.exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.EMFILE])
def test_other_reasons_not_to_write(config: MeZOConfig, tmp_path: Path, number: int) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    end = broken_off(config, tmp_path / "run", Calls(tmp_path / "run", 12, refuse, stays=True))
    assert os.strerror(number) in end
    assert RunFolder.begun(tmp_path / "run")
