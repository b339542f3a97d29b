"""Toy runs on file systems that are small, or turn read-only: a program of its own, in a mount namespace of its own.

    unshare --mount python -m tests.small_disk full FOLDER

Mounts nothing that another process sees. Prints what became of each run as a line of JSON.
"""

import argparse
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tests.resumed import ROWS, base, config_for, resume, trainer, what_counts

from mezo import cli
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.resume.verify import verify
from mezo.runs import trajectory
from mezo.runs.locking import RunLock
from mezo.training import artifacts

AMPLE = {"size": "16m", "nr_inodes": "1000"}
STEPS = 40  # lines of metrics.jsonl for some pages


@dataclass
class Ended:
    """A run that was broken off, and what it came to once there was room."""

    where: str
    said: str  # the error; "" where the run came to its end
    safe: int  # steps that a reader of the trajectory finds
    first_of_whole: bool  # they are those of the run that nothing disturbed
    verified: bool  # `mezo trajectory verify` has nothing against it; and so where nothing was begun
    equal: bool  # gone on with, it has the bytes of the run that nothing disturbed


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def change(folder: Path, how: str) -> None:
    # the file system is named, or mount would add the options it had, of which some are not ours to give
    mount("-o", how, "tmpfs", str(folder))


def options(**values: str) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())


def disk(folder: Path, **limits: str) -> Path:
    """A file system of its own, in memory. limits: size, nr_inodes."""
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", options(**{**AMPLE, **limits}), "tmpfs", str(folder))
    return folder


class At(Observer):
    """Calls `act` with the number of updates done, after each."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self.act = act

    def on_step(self, record: Any) -> None:
        self.act(record.step + 1)


class Used:
    """Of a file system, after each step and at the end: what a run has taken of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pages, self.files = folder, dict[int, int](), dict[int, int]()

    def look(self, done: int) -> None:
        now = os.statvfs(self.folder)
        self.pages[done], self.files[done] = now.f_blocks - now.f_bfree, now.f_files - now.f_ffree


class Whole:
    """A run that nothing disturbs: what it comes to, and what it takes of the disk meanwhile."""

    def __init__(self, config: MeZOConfig, folder: Path) -> None:
        self.config, self.used = config, Used(disk(folder))
        result = trainer(config, output=folder / "run", artifacts=True, observer=At(self.used.look)).train()
        self.used.look(config.num_steps + 1)
        self.expected = what_counts(folder / "run", result)
        self.records = trajectory.read(folder / "run/trajectory.mezo").records.tobytes()

    def ended(self, run: Path, where: str, said: str, make_room: Callable[[], object]) -> Ended:
        """What there is of `run`, and what it comes to after `make_room`."""
        found, verified = b"", True
        if (run / "trajectory.mezo").exists():
            found = trajectory.read(run / "trajectory.mezo").records.tobytes()
            verified = bool(verify(run))
        make_room()
        RunLock.check(run)  # nobody holds it
        begun = (run / "config.yaml").exists()
        result = resume(run, artifacts=True) if begun else self.begin(run).train()
        width = len(self.records) // self.config.num_steps
        return Ended(
            where,
            said,
            len(found) // width,
            self.records.startswith(found),
            verified,
            what_counts(run, result) == self.expected,
        )

    def begin(self, run: Path, observer: Observer | None = None) -> Any:
        return trainer(self.config, output=run, artifacts=True, observer=observer or Observer())


def limited(whole: Whole, folder: Path, where: str, **limits: str) -> Ended:
    """A run on a file system of these limits, which are lifted when it has ended."""
    place, said = disk(folder, **limits), ""
    try:
        whole.begin(place / "run").train()
    except MezoError as error:
        said = str(error)
    return whole.ended(place / "run", where, said, lambda: change(place, f"remount,{options(**AMPLE)}"))


def full(model: Path, work: Path) -> Iterator[Ended]:
    """Sizes at which the disk is full at the start, among the steps, at a snapshot, and at what is left at the end."""
    page = os.sysconf("SC_PAGESIZE")
    plain = Whole(config_for(model, num_steps=STEPS, snapshot_every=0, eval_every=0), work / "plain")
    often = Whole(config_for(model, num_steps=STEPS, snapshot_every=10, eval_every=0), work / "often")
    taken, end = plain.used.pages, STEPS + 1
    sizes = [
        *((plain, "start", pages) for pages in (1, 2)),
        (plain, "steps", taken[1]),
        (plain, "steps", taken[STEPS] - 1),
        (often, "snapshot", often.used.pages[1] + 1),  # the first does not fit
        (often, "snapshot", often.used.pages[11] + 1),  # the second
        *((plain, "end", pages) for pages in range(taken[STEPS], taken[end], 6)),
    ]
    for number, (whole, where, pages) in enumerate(sizes):
        yield limited(whole, work / f"full-{number}", where, size=str(pages * page))


def inodes(model: Path, work: Path) -> Iterator[Ended]:
    """Bytes are free, and no further file can be made: at every number of files that is too small."""
    whole = Whole(config_for(model, num_steps=6, snapshot_every=2, eval_every=3), work / "whole")
    for number in range(2, max(whole.used.files.values())):
        yield limited(whole, work / f"inodes-{number}", "", nr_inodes=str(number))


def readonly(model: Path, work: Path) -> Iterator[Ended]:
    """A RUN that turns read-only after a step: for all that is opened from then on."""
    whole = Whole(config_for(model, num_steps=6, snapshot_every=2, eval_every=3), work / "whole")
    for at in (1, 3, 6):
        run = disk(work / f"readonly-{at}") / "run"

        def freeze(done: int, run: Path = run, at: int = at) -> None:
            if done == at:  # over itself: a file system with files open for writing cannot be made read-only
                mount("--bind", str(run), str(run))
                change(run, "remount,bind,ro")

        said = ""
        try:
            whole.begin(run, At(freeze)).train()
        except MezoError as error:
            said = str(error)
        refused = _refused(run)
        thaw = lambda run=run: subprocess.run(["umount", str(run)], check=True)  # noqa: E731
        yield whole.ended(run, refused, said, thaw)


def _refused(run: Path) -> str:
    """What is said to someone who resumes it too early."""
    try:
        resume(run)
    except MezoError as error:
        return str(error)
    return ""


@dataclass
class Said:
    """What a command came to."""

    command: str
    status: int
    out: str
    error: str


def commands(model: Path, work: Path) -> Iterator[Said]:
    """As a person has it: a full disk, room, the rest of the run; then the finished run on a disk that is read-only."""
    place, rows = disk(work / "small", size=str(20 * os.sysconf("SC_PAGESIZE"))), work / "rows"
    rows.mkdir()
    for split in ("train", "validation"):
        (rows / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = str(place / "run")
    settings = [
        "--model",
        str(model),
        "--task",
        "sst2",
        "--data",
        str(rows),
        "--batch-size",
        "3",
        "--steps",
        "12",
        "--learning-rate",
        "1e-3",
    ]
    yield said("train", *settings, "--snapshot-every", "4", "--output", run)
    change(place, f"remount,{options(**AMPLE)}")
    yield said("train", "--resume", run)
    yield said("trajectory", "verify", run, "--weights")
    change(place, "remount,ro")
    yield said("trajectory", "verify", run)
    yield said("train", "--resume", run)
    yield said("replay", run, "--output", str(work / "again"))
    yield said("plot", run)
    yield said("train", *settings, "--output", run, "--overwrite")
    yield said("train", *settings, "--output", str(place / "other"))
    yield said("train", "--resume", run, "--steps", "13", "--schedule", "constant")


def said(*arguments: str) -> Said:
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        status = cli.main(arguments)
    return Said(" ".join(arguments), status, out.getvalue(), error.getvalue())


@contextmanager
def undrawn() -> Iterator[None]:
    """Runs without their plots, which take longer than the rest of them."""
    drawn = artifacts.write_plots
    artifacts.write_plots = lambda run: run.plots.mkdir(exist_ok=True) or []  # pyright: ignore
    try:
        yield
    finally:
        artifacts.write_plots = drawn


SCENARIOS = {"full": full, "inodes": inodes, "readonly": readonly, "commands": commands}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = base(given.folder / "base")
    with undrawn():
        for found in SCENARIOS[given.scenario](model, given.folder / "disks"):
            print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
