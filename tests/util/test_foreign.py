"""What people name in a file's place: read if it is a small file, told in a line if it would never end."""

import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.runs.summary import NAME, read_summary
from mezo.tasks.load_task import read_task
from mezo.tuning.adapter_files import CONFIG, WEIGHTS, settings_of, shapes_of
from mezo.util.foreign import MOST, kind_of, read_text

SPECIAL = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a device": lambda path: os.symlink("/dev/zero", path),
}


def test_text_is_read_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("äé\n", encoding="utf-8")
    assert kind_of(path) is None
    assert read_text(path) == "äé\n"
    assert read_text(path, most=5) == "äé\n"
    with pytest.raises(ValueError, match="expected at most 4 bytes, found more"):
        read_text(path, most=4)
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_may_never_end_is_refused(tmp_path: Path, kind: str) -> None:
    SPECIAL[kind](tmp_path / "x")
    with pytest.raises(ValueError, match=f"expected a file, found {kind}"):
        read_text(tmp_path / "x")


def test_a_pipe_is_read_where_a_person_names_one(tmp_path: Path) -> None:
    """As `--config <(command)` does."""
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("epsilon: 0.25\n",))
    writer.start()
    assert MeZOConfig.load(path).epsilon == 0.25
    writer.join()


READERS: dict[str, tuple[str, Any]] = {
    "settings": ("config.yaml", MeZOConfig.load),
    "task": ("task.yaml", read_task),
    "adapter's settings": (CONFIG, lambda path: settings_of(path.parent)),
    "adapter's tensors": (WEIGHTS, shapes_of),
    "summary": (NAME, lambda path: read_summary(path.parent)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["a device", "a folder", "a file of holes"])
def test_every_reader_of_small_files_is_bounded(tmp_path: Path, reader: str, kind: str) -> None:
    name, read = READERS[reader]
    if kind in SPECIAL:
        SPECIAL[kind](tmp_path / name)
    else:
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(MezoError, match=r"expected a|not a readable") as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_adapter_is_no_pipe(tmp_path: Path) -> None:
    for name, read in ((CONFIG, lambda path: settings_of(path.parent)), (WEIGHTS, shapes_of)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(MezoError, match="expected a file, found a pipe"):
            read(tmp_path / name)


def test_the_bound_is_far_above_what_settings_have() -> None:
    assert len(MeZOConfig().to_yaml()) * 1000 < MOST


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """A read of a number of bytes sets aside room for all of them first."""
    path = tmp_path / "small.json"
    path.write_text("{}")
    tracemalloc.start()
    try:
        assert read_text(path, most=1 << 30) == "{}"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
