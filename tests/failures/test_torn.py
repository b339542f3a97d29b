"""Every file of a broken-off run cut at the borders of its records, and a byte to either side: resumed to the same
bytes, or refused in one line."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base, config_for, copy, resume, trainer, what_counts
from tests.tiers import mostly_slow

from mezo.errors import MezoError
from mezo.events import Observer
from mezo.runs import trajectory

STEPS, LAST = 10, 7  # of the whole run; done when it was broken off
FILES = (
    "trajectory.mezo",
    "trajectory.mezo.journal",
    "metrics.jsonl",
    "events.jsonl",
    "config.yaml",
    "snapshots/step-00000004.safetensors",
    "snapshots/step-00000006.safetensors",
)
# what no crash cuts: written whole and renamed, or behind what is on the disk
REFUSED = ("trajectory.mezo", "metrics.jsonl", "config.yaml")


class Leaving(Observer):
    def __init__(self, run: Path, to: Path) -> None:
        self.run, self.to = run, to

    def on_step(self, record: Any) -> None:
        if record.step + 1 == LAST:
            copy(self.run, self.to)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run as a kill -9 would have left it, and what it comes to whole."""
    folder = tmp_path_factory.mktemp("torn")
    config = config_for(base(folder / "base"), num_steps=STEPS, snapshot_every=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory, "BLOCK_RECORDS", 4)
        ended = trainer(
            config, output=folder / "run", observer=Leaving(folder / "run", folder / "left")
        ).train()
    return folder / "left", what_counts(folder / "run", ended)


def borders(path: Path) -> list[int]:
    """Where a record of the file begins or ends."""
    raw = path.read_bytes()
    if path.name == "trajectory.mezo":
        head = 12 + struct.unpack_from("<I", raw, 8)[0]
        found = [8, 12, head, head + 4, head + 6, *range(head + 4, len(raw), 2 + 4 * 4 + 4)]
    elif path.suffix == ".journal":
        found = list(range(0, len(raw), 8 + 4 + 4))
    elif path.suffix == ".safetensors":
        found = [8, 8 + struct.unpack_from("<Q", raw)[0]]
    else:
        lines = [n + 1 for n, byte in enumerate(raw) if byte == ord("\n")]
        found = lines if path.suffix == ".jsonl" else [*lines[::8], *lines[-6:]]  # of settings a few do
    return [0, *found, len(raw)]


def cuts(path: Path) -> Iterator[int]:
    yield from sorted(
        {at + by for at in borders(path) for by in (-1, 0, 1) if 0 <= at + by < path.stat().st_size}
    )


@pytest.mark.parametrize("name", mostly_slow(FILES, lambda name: name.endswith(".journal")))
def test_a_file_cut_at_every_border(
    name: str, left: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "BLOCK_RECORDS", 4)
    folder, expected = left
    whole = (folder / name).read_bytes()
    resumed = 0
    for number, size in enumerate(cuts(folder / name)):
        torn = copy(folder, tmp_path / str(number))
        (torn / name).write_bytes(whole[:size])
        try:
            result = resume(torn)
        except MezoError:
            assert name in REFUSED, size
            continue
        resumed += 1
        assert what_counts(torn, result) == expected, size
    assert resumed > 0 or name == "config.yaml"
