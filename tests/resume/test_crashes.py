"""A death at every moment in which a run writes: the folder as it is then is resumed to the same bytes."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base, config_for, copy, resume, trainer, what_counts
from tests.tiers import mostly_slow

from mezo.config import MeZOConfig
from mezo.runs import metrics_file, snapshots, trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.snapshots import Snapshot


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


class Moments:
    """Copies of a RUN folder before and after everything that is done to it, and with half of each write done."""

    def __init__(self, folder: Path, into: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.into = folder, into
        self.kept: dict[str, Path] = {}  # by content
        self.names: list[str] = []  # of the copies
        self.passed: set[str] = set()  # of all moments: some leave the folder as it was
        write, fsync, replace, paths = metrics_file.write_all, os.fsync, os.replace, snapshots._paths

        def half(file: Any, data: bytes) -> None:
            self.keep("before a write")
            write(file, data[: len(data) // 2])
            self.keep("in the midst of a write")
            write(file, data[len(data) // 2 :])
            self.keep("after a write")

        def around(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any) -> Any:
                self.keep(f"before {what}")
                result = call(*args)
                self.keep(f"after {what}")
                return result

            return wrapped

        for module in (metrics_file, trajectory):
            patch.setattr(module, "write_all", half)
        patch.setattr(os, "fsync", around("fsync", fsync))
        patch.setattr(os, "replace", around("rename", replace))
        patch.setattr(snapshots, "_paths", self._seeing_three(paths))

    def _seeing_three(self, paths: Callable[[Path], Iterator[Path]]) -> Callable[[Path], Iterator[Path]]:
        def seeing(folder: Path) -> Iterator[Path]:
            found = list(paths(folder))
            if len(found) > snapshots.KEPT:
                self.keep("before the rotation")
            return iter(found)

        return seeing

    def keep(self, name: str) -> None:
        if not (self.folder / "config.yaml").is_file():
            return  # nothing to resume yet
        self.passed.add(name)
        digest = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(self.folder)} ".encode() + path.read_bytes())
        if (key := digest.hexdigest()) not in self.kept:
            self.kept[key] = copy(self.folder, self.into / str(len(self.kept)))
            self.names.append(name)


def broken(model: Path, tmp_path: Path, config: MeZOConfig) -> tuple[Moments, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory, "BLOCK_RECORDS", 4)  # so that a short run seals blocks
        moments = Moments(tmp_path / "run", tmp_path / "moments", patch)
        whole = trainer(config, output=tmp_path / "run").train()
    return moments, what_counts(tmp_path / "run", whole)


def check(moments: Moments, expected: dict[str, Any], every: int = 1) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory, "BLOCK_RECORDS", 4)
        for number in range(0, len(moments.names), every):
            folder = moments.into / str(number)
            result = resume(folder)
            assert what_counts(folder, result) == expected, f"{moments.names[number]} ({number})"
            shutil.rmtree(folder)


def test_a_death_at_some_moments(model: Path, tmp_path: Path) -> None:
    moments, expected = broken(model, tmp_path, config_for(model, num_steps=9, snapshot_every=2))
    assert moments.passed >= {
        "before the rotation",
        "in the midst of a write",
        "before rename",
        "after rename",
    }
    assert len(moments.names) > 50
    check(moments, expected, every=len(moments.names) // 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        dict(optimizer="momentum"),
        dict(memory="regenerate", dtype="bfloat16"),
        dict(clip_quantile=0.5, tuning="lora"),
    ],
)
def test_a_death_at_every_moment(model: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    moments, expected = broken(model, tmp_path, config_for(model, num_steps=9, snapshot_every=2, **how))
    check(moments, expected)


@pytest.mark.slow
def test_a_death_while_resuming(model: Path, tmp_path: Path) -> None:
    """Again at every moment, of a run that had been broken off and stopped by hand before."""
    config = config_for(model, num_steps=9, snapshot_every=2)
    first, expected = broken(model, tmp_path / "a", config)
    middle = first.into / str(len(first.names) // 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory, "BLOCK_RECORDS", 4)
        copy(middle, tmp_path / "b")
        again = Moments(tmp_path / "b", tmp_path / "moments", patch)
        resume(tmp_path / "b")
    check(again, expected)


def test_files_torn_at_every_byte_of_their_last_records(model: Path, tmp_path: Path) -> None:
    """Of the journal, the metrics and the trajectory; the plan that is made of them is compared, and some runs."""
    from mezo.resume.plan import plan

    moments, expected = broken(model, tmp_path, config_for(model, num_steps=9, snapshot_every=4))
    taken = [n for n, name in enumerate(moments.names) if name == "after a write"]
    folder = moments.into / str(taken[-3])
    files = RunFolder(folder)
    journal = trajectory.journal_of(files.trajectory)
    for path, last in ((journal, 64), (files.metrics, 500), (files.trajectory, 2 + 4 * 4 + 4)):
        whole = path.read_bytes()
        for size in range(max(0, len(whole) - last), len(whole)):
            path.write_bytes(whole[:size])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trajectory, "BLOCK_RECORDS", 4)
                if path != files.metrics:
                    found = plan(files, remembers=False)
                    assert 4 <= found.done <= 9
                    assert found.done == len(found.steps)
                    assert [s.step for s in found.steps] == list(range(found.done))
        path.write_bytes(whole)
    journal.write_bytes(journal.read_bytes()[:-3])
    check_one(folder, expected)


def check_one(folder: Path, expected: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory, "BLOCK_RECORDS", 4)
        assert what_counts(folder, resume(folder)) == expected


@pytest.mark.parametrize(
    "damage", mostly_slow(["a bit", "cut short", "empty", "no file"], lambda damage: damage == "a bit")
)
def test_a_damaged_snapshot_gives_way_to_the_one_before(model: Path, tmp_path: Path, damage: str) -> None:
    moments, expected = broken(model, tmp_path, config_for(model, num_steps=9, snapshot_every=2))
    folder = moments.into / str(len(moments.names) * 3 // 4)
    paths = sorted((folder / "snapshots").glob("step-*"))
    assert len(paths) >= 2
    raw = bytearray(paths[-1].read_bytes())
    raw[-100] ^= 1
    if damage == "no file":
        paths[-1].unlink()
    else:
        paths[-1].write_bytes({"a bit": bytes(raw), "cut short": raw[:-50], "empty": b""}[damage])
    found = snapshots.newest(folder / "snapshots", lambda snapshot: True)
    assert found is not None
    assert found.path == paths[-2]
    assert Snapshot(paths[-2]).step == found.step
    check_one(folder, expected)
