"""One writer of a RUN folder, whatever became of the one before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mezo.errors import MezoError
from mezo.runs import locking
from mezo.runs.locking import RunLock

# takes the lock, says so, and waits to be killed; of the module itself, which needs nothing of the package
HOLDER = f"""
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("locking", {str(Path(locking.__file__))!r})
locking = importlib.util.module_from_spec(spec)
spec.loader.exec_module(locking)
lock = locking.RunLock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with RunLock.take(tmp_path):
        with pytest.raises(
            MezoError, match=rf"process {os.getpid()} on \S+ \(since .*\) is writing in this folder"
        ):
            RunLock.take(tmp_path)
        with pytest.raises(MezoError, match="is writing in this folder"):
            RunLock.check(tmp_path)
    RunLock.check(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_gives_back_what_a_killed_process_held(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(MezoError, match=f"process {child.pid} on "):
            RunLock.take(tmp_path)
    finally:
        child.kill()
        child.communicate()
    assert (
        json.loads((tmp_path / locking.NAME).read_text())["pid"] == child.pid
    )  # left behind, and in nobody's way
    RunLock.check(tmp_path)
    with RunLock.take(tmp_path):
        assert json.loads((tmp_path / locking.NAME).read_text())["pid"] == os.getpid()


def test_a_lock_whose_name_was_taken_away_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last holder removes the file between our opening and our locking it: we lock the new one."""
    first, real = RunLock.take(tmp_path), os.open
    opened = []

    def slow(path: Path, flags: int, mode: int) -> int:
        handle = real(path, flags, mode)
        if not opened:
            first.release()
        opened.append(handle)
        return handle

    monkeypatch.setattr(os, "open", slow)
    lock = RunLock.take(tmp_path)
    monkeypatch.undo()
    assert len(opened) == 2
    with pytest.raises(MezoError, match="is writing in this folder"):
        RunLock.take(tmp_path)
    lock.release()
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x", "host": 1, "since": 2}', b"\xff\xfe"])
def test_a_holder_that_has_not_signed_is_another_process(tmp_path: Path, content: bytes) -> None:
    with RunLock.take(tmp_path):
        (tmp_path / locking.NAME).write_bytes(content)
        with pytest.raises(MezoError, match="another process is writing in this folder"):
            RunLock.take(tmp_path)


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="cannot lock the run: No such file"):
        RunLock.take(tmp_path / "missing")
