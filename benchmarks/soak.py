"""Deaths at random moments of runs under settings drawn at random; each run resumed must equal one left alone.

    python -m benchmarks soak --deaths 1000

A run is drawn from the registries and from what the settings allow, trained once undisturbed, and once with a few deaths
and a resumption after each. Then its trajectory, its tuned weights, its metrics (but for times) and the names of its files
are compared. Settings that mezo refuses are drawn again, and counted.

The deaths: SIGKILL, SIGTERM, SIGINT, SIGSTOP with SIGCONT (which a run must not notice), a disk that fills (a file system in
memory; left out if this program may not mount one), and with two processes the loss of one. They happen during the steps,
while a process starts, and while it writes its results.

Each life is a fork of this process, which has imported everything, so that it takes half a second instead of ten. Blocks
of the trajectory are sealed every 4 steps, so that short runs have many. Prints a line of JSON for each run and one at
the end; exits with 1 if anything differs. A run's settings and the kinds of its deaths follow from --seed and its number,
so that `--seed S --first N` starts with it again.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.processes import environment
from benchmarks.soak_deaths import Odd, Pace, Run, begin, die, mount, unmount
from benchmarks.soak_settings import drawn, fixed, prepare

TIMES = {"seconds", "seconds_saved", "profile"}


class Soak:
    def __init__(self, work: Path, seed: int, mounts: bool) -> None:
        self.work, self.seed, self.mounts = work, seed, mounts
        self.deaths: Counter[str] = Counter()  # those that ended a process, and pauses of one
        self.drawn: dict[str, Counter[str]] = {}
        self.refused: Counter[str] = Counter()
        self.runs, self.pace = 0, Pace()
        self.wrong: list[dict[str, Any]] = []

    def run(self, number: int, deaths: int) -> None:
        """Compare one drawn run, undisturbed and with deaths."""
        random_ = random.Random(f"{self.seed}/{number}")
        run = Run(self.work / str(number), 2 if random_.random() < 0.2 else 1, random_)
        run.place.mkdir()
        run.disk.mkdir()
        if self.mounts:
            mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(run.disk))
        try:
            wrong = self._undisturbed(run)
            if wrong is None:
                self._count(run)
                wrong = self._disturbed(run, deaths)
                if wrong is not None:
                    shutil.copytree(run.disk, self.work / f"wrong-{number}", dirs_exist_ok=True)
            self._tell(number, run, wrong)
        finally:
            if self.mounts:
                unmount(run.disk)
            shutil.rmtree(run.place)

    def _undisturbed(self, run: Run) -> str | None:
        """Draw settings until mezo accepts them, and train; returns what was wrong."""
        while True:
            run.settings = drawn(run.random)
            run.config.write_text(json.dumps({**fixed(self.work), **run.settings}))
            began = time.monotonic()
            life = begin(run, run.undisturbed)
            life.wait_for(run.undisturbed, 1)
            first = time.monotonic()
            life.wait_for(run.undisturbed, run.settings["num_steps"])
            last = time.monotonic()
            life.finish()
            codes = set(life.codes.values())
            if codes == {0}:
                step = (last - first) / run.settings["num_steps"]
                self.pace = Pace(first - began, step, time.monotonic() - last)
                return None
            said = run.said(run.undisturbed)
            if codes != {2} or "Traceback" in said or run.undisturbed.exists():
                return f"undisturbed, it ended with {life.codes}: {said[-2000:]}"
            self.refused[_reason(said)] += 1

    def _disturbed(self, run: Run, deaths: int) -> str | None:
        """Train with deaths, then to the end; returns what was wrong or differs from the undisturbed run."""
        try:
            for death in range(deaths):
                if die(run, death / deaths, self.pace, self.mounts, self.deaths):
                    break
        except Odd as error:
            return str(error)
        life = begin(run, run.disturbed)
        life.finish()
        if set(life.codes.values()) != {0}:
            return f"the last life ended with {life.codes}: {run.said(run.disturbed)[-2000:]}"
        expected, found = what_counts(run.undisturbed), what_counts(run.disturbed)
        unlike = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        return f"unlike the undisturbed run: {', '.join(unlike)}" if unlike else None

    def _count(self, run: Run) -> None:
        for name, value in {**run.settings, "processes": run.processes}.items():
            if name not in ("seed", "num_steps"):
                self.drawn.setdefault(name, Counter())[str(value)] += 1

    def _tell(self, number: int, run: Run, wrong: str | None) -> None:
        found: dict[str, Any] = {
            "run": number,
            "processes": run.processes,
            "settings": run.settings,
            "deaths": run.events,
        }
        if wrong is not None:
            found["wrong"] = wrong
            self.wrong.append(found)
        self.runs += 1
        print(json.dumps(found), flush=True)


def what_counts(run: Path) -> dict[str, Any]:
    """Everything that must be equal in two runs, by name."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    found: dict[str, Any] = {
        "metrics.jsonl": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "names of files": sorted(path.name for path in run.iterdir()),
    }
    for path in (
        run / "trajectory.mezo",
        *run.glob("model/*.safetensors"),
        *run.glob("adapter/*.safetensors"),
    ):
        found[path.name] = path.read_bytes()
    return found


def _reason(said: str) -> str:
    """The first words of an error message."""
    line = next((line for line in said.splitlines() if "error: " in line), said.strip()[-200:])
    return line.partition("error: ")[2][:80]


def soak(
    work: Path,
    deaths: int,
    *,
    seed: int,
    first: int = 0,
    per_run: int = 5,
    mounts: bool,
    seconds: float = 1e9,
) -> Soak:
    """Run until the number of deaths is reached or the time is over."""
    prepare(work)
    found, end = Soak(work, seed, mounts), time.monotonic() + seconds
    for number in itertools.count(first):
        if found.deaths.total() >= deaths or time.monotonic() > end:
            return found
        found.run(number, min(per_run, deaths - found.deaths.total()))
    raise AssertionError


def main() -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported, which is later
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--deaths", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further run after that")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for what differed")
    parser.add_argument("--mounts", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.mounts:
        from tests.failures.test_disk import apart

        if (how := apart()) is not None:  # once more, in a namespace that may mount file systems
            again = [sys.executable, "-m", "benchmarks", "soak", *sys.argv[1:], "--mounts"]
            os.execvpe(how[0], [*how, *again], environment())
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(json.dumps({"seed": seed, "full disks": given.mounts}), flush=True)
    began, memory = time.monotonic(), Path("/dev/shm")  # where fsync costs nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        found = soak(
            Path(folder),
            given.deaths,
            seed=seed,
            first=given.first,
            mounts=given.mounts,
            seconds=given.seconds,
        )
        if given.keep is not None:
            for place in Path(folder).glob("wrong-*"):
                shutil.copytree(place, given.keep / place.name, dirs_exist_ok=True)
    end = {
        "seed": seed,
        "deaths": found.deaths.total(),
        "kinds": dict(found.deaths),
        "runs": found.runs,
        "refused": found.refused.total(),
        "reasons": dict(found.refused),
        "settings": {name: dict(counts) for name, counts in found.drawn.items()},
        "unequal": len(found.wrong),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(end))
    return 1 if found.wrong or (found.deaths.total() < given.deaths and given.seconds >= 1e9) else 0
