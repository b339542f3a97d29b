"""Deaths at random moments of runs under settings drawn at random; each run resumed must equal one left alone.

    python benchmarks/soak.py --deaths 1000

A run is drawn from the registries and from what the settings allow, trained once undisturbed, and once with a few deaths
and a resumption after each. Then its trajectory, its tuned weights, its metrics (but for times) and the names of its files
are compared. Settings that mezo refuses are drawn again, and counted.

The deaths: SIGKILL, SIGTERM, SIGINT, SIGSTOP with SIGCONT (of which a run may know nothing), a disk that is full from some
moment on (on a file system in memory; left out where this program may not mount one), and with two processes the loss of
one of them. They fall on the steps, on the start of a process and on what it writes at its end.

Each life is a fork of this process, which has imported everything, so that it costs half a second rather than ten. Blocks
of the trajectory are sealed every 4 steps, so that short runs have many. Prints a line of JSON for each run and one at
the end; exits with 1 if anything differs. A run's settings and the kinds of its deaths follow from --seed and its number,
so that `--seed S --first N` begins with it again.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported
LIMIT = 60.0  # seconds that a life may take: processes that wait for a lost one take twice rank_timeout
TIMES = {"seconds", "seconds_saved", "profile"}
KINDS = ("kill", "term", "int", "stop", "full", "rank")
# what a life of the kind may end with: -N by signal N. A signal may come before a process listens, or after its last step.
ENDS = {
    "kill": {-9, 0},
    "term": {143, -15, 0},
    "int": {130, -2, 0},
    "full": {2, 0},
    "rank": {-9, 1, 2, 0},
}


@dataclass
class Life:
    """The processes of one life of a run."""

    pids: list[int]
    codes: dict[int, int] = field(default_factory=dict)  # by rank

    def ended(self) -> bool:
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                self.codes[rank] = os.waitstatus_to_exitcode(found[1])
        return len(self.codes) == len(self.pids)

    def send(self, number: int, ranks: list[int] | None = None) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes and (ranks is None or rank in ranks):
                os.kill(pid, number)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Until it has ended, `until` holds or the time is over; whether it is still alive."""
        end = time.monotonic() + seconds
        while not self.ended():
            if until() or time.monotonic() > end:
                return True
            time.sleep(0.001)
        return False

    def wait_for(self, run: Path, steps: int) -> None:
        self.wait(LIMIT, lambda: _done(run) >= steps)

    def finish(self) -> bool:
        """Wait for its end; False if there was none in time: then it says where it stood, and is killed."""
        if self.wait(LIMIT):
            self.send(signal.SIGUSR1)
            time.sleep(1)
            self.send(signal.SIGKILL)
            self.wait(LIMIT)
            return False
        return True


class Odd(Exception):
    """What should not have happened."""


def begin(run: Path, config: Path, processes: int) -> Life:
    """Fork a life of a run: its first, or one that goes on."""
    place = ["--resume", str(run)] if (run / "config.yaml").exists() else ["--output", str(run)]
    arguments = ["train", *([] if place[0] == "--resume" else ["--config", str(config)]), *place]
    port = _free_port()
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            _live(arguments, rank, processes, port, run.parent.parent / f"{run.name}-{rank}.said")
        pids.append(pid)
    return Life(pids)


def _live(arguments: list[str], rank: int, processes: int, port: int, said: Path) -> None:
    """What a child does, which never returns."""
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        faulthandler.register(signal.SIGUSR1)
        if processes > 1:
            several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(n) for name, n in several.items()}}
        from mezo.cli import main

        code = main(arguments)
        from mezo.parallel.group import leave

        leave()
    except KeyboardInterrupt:
        code = 130  # before the command was there to hear it
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def drawn(random: random.Random) -> dict[str, Any]:
    """Settings of a run, of every registry and choice that decides about numbers."""
    from mezo.config import MeZOConfig
    from mezo.estimators import ESTIMATORS
    from mezo.optimizers import OPTIMIZERS

    values: dict[str, Any] = {
        "estimator": random.choice([*ESTIMATORS]),
        "optimizer": random.choice([*OPTIMIZERS]),
    }
    for name in ("tuning", "noise", "dtype", "rounding", "memory", "schedule"):
        values[name] = random.choice(get_args(MeZOConfig.model_fields[name].annotation))
    for name in ("blocks", "layer_scaling"):
        choices = get_args(MeZOConfig.model_fields[name].annotation)
        values[name] = random.choice([choices[0]] * 2 * len(choices) + [*choices])
    values["gradient_accumulation"] = random.choice([1, 1, 2])
    values["num_directions"] = random.choice([1, 2, 3])
    values["final_directions"] = random.choice([None, None, values["num_directions"] + 2])
    values["normalize_perturbations"] = random.random() < 0.2
    values["clip_quantile"] = random.choice([None, None, None, 0.5])
    values["granularity"] = (
        random.choice([None, "matrix", "block", "element"]) if values["memory"] == "regenerate" else None
    )
    values["snapshot_every"] = random.choice([0, 2, 3, 5, 7, None])
    values["eval_every"] = random.choice([0, 4, 9])
    values["checksum_every"] = random.choice([1, 3])
    values["num_steps"] = random.randrange(16, 41)
    values["seed"] = random.randrange(1000)
    return values


class Soak:
    def __init__(self, work: Path, seed: int, mounts: bool) -> None:
        self.work, self.seed, self.mounts = work, seed, mounts
        self.deaths: Counter[str] = Counter()  # those that ended a process, and pauses of one
        self.drawn: dict[str, Counter[str]] = {}
        self.refused: Counter[str] = Counter()
        self.runs, self.loading, self.step, self.ending = 0, 1.0, 0.01, 0.5
        self.wrong: list[dict[str, Any]] = []

    def run(self, number: int, deaths: int) -> None:
        """One drawn run, against itself undisturbed."""
        random_ = random.Random(f"{self.seed}/{number}")
        processes = 2 if random_.random() < 0.2 else 1
        place = self.work / str(number)
        place.mkdir()
        disk = place / "disk"
        disk.mkdir()
        if self.mounts:
            _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk))
        try:
            while True:
                values = drawn(random_)
                config = place / "config.yaml"
                config.write_text(json.dumps({**_fixed(self.work), **values}))
                whole = place / "calm" / "whole"
                began = time.monotonic()
                life = begin(whole, config, processes)
                life.wait_for(whole, 1)
                first = time.monotonic()
                life.wait_for(whole, values["num_steps"])
                last = time.monotonic()
                life.finish()
                if set(life.codes.values()) == {0}:
                    break
                said = (place / "whole-0.said").read_text()
                if set(life.codes.values()) != {2} or "Traceback" in said or whole.exists():
                    wrong = f"undisturbed, it ended with {life.codes}: {said[-2000:]}"
                    self._tell(
                        {
                            "run": number,
                            "processes": processes,
                            "settings": values,
                            "deaths": [],
                            "wrong": wrong,
                        }
                    )
                    return
                self.refused[_reason(said)] += 1
            self.loading, self.ending = first - began, time.monotonic() - last
            self.step = (last - first) / values["num_steps"]
            events: list[str] = []
            told = {"run": number, "processes": processes, "settings": values, "deaths": events}
            for name, value in {**values, "processes": processes}.items():
                if name not in ("seed", "num_steps"):
                    self.drawn.setdefault(name, Counter())[str(value)] += 1
            try:
                run = disk / "run"
                for death in range(deaths):
                    if self._die(
                        run, config, processes, values["num_steps"], death / deaths, random_, events
                    ):
                        break
                life = begin(run, config, processes)
                life.finish()
                said = (place / "run-0.said").read_text()
                if set(life.codes.values()) != {0}:
                    raise Odd(f"the last life ended with {life.codes}: {said[-2000:]}")
                expected, found = what_counts(whole), what_counts(run)
                unlike = sorted(
                    name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
                )
                if unlike:
                    raise Odd(f"unlike the undisturbed run: {', '.join(unlike)}")
            except Odd as error:
                told["wrong"] = str(error)
                shutil.copytree(disk, self.work / f"wrong-{number}", dirs_exist_ok=True)
            self._tell(told)
        finally:
            if self.mounts:
                _umount(disk)
            shutil.rmtree(place)

    def _tell(self, told: dict[str, Any]) -> None:
        self.runs += 1
        if "wrong" in told:
            self.wrong.append(told)
        print(json.dumps(told), flush=True)

    def _die(
        self,
        run: Path,
        config: Path,
        processes: int,
        steps: int,
        share: float,
        random: random.Random,
        events: list[str],
    ) -> bool:
        """One life, up to a death, or to its end where it is quicker: then True."""
        kinds = [k for k in KINDS if (k != "full" or self.mounts) and (k != "rank" or processes > 1)]
        kind, where = (
            random.choice(kinds),
            random.choice(["start", "step", "step", "end" if share > 0.7 else "step"]),
        )
        goal = {"start": 0, "step": round(steps * share) + random.randrange(1, 4), "end": steps}[where]
        if where == "step" and goal <= _done(run):
            where = "start"
        delay = {"start": self.loading, "step": 3 * self.step, "end": self.ending}[where] * random.random()
        life = begin(run, config, processes)
        if where != "start":
            life.wait_for(run, goal)
        alive, stopped = life.wait(delay), kind == "stop"
        if alive and stopped:
            self._strike(life, kind, run, random)
            self.deaths[kind] += 1
            kind = random.choice([k for k in kinds if k != "stop"])
            alive = life.wait(3 * self.step * random.random())
        if alive:
            self._strike(life, kind, run, random)
        ended = life.finish()
        if kind == "full":
            _mount("-o", "remount,size=64m", "tmpfs", str(run.parent))
        codes = set(life.codes.values())
        events.append(
            f"{'stop and ' if stopped else ''}{kind} at the {where}, {_done(run)} steps: {sorted(life.codes.values())}"
        )
        self.deaths[kind] += codes != {0}
        said = "".join((run.parent.parent / f"run-{rank}.said").read_text() for rank in range(processes))
        allowed = ENDS[kind] if alive else {0}
        if processes > 1:
            allowed = allowed | {1, 2, 143, 130}  # what the others end with
        if not ended or not codes <= allowed or "Traceback" in said:
            raise Odd(f"{events[-1]}: {said[-4000:]}")
        return codes == {0}

    def _strike(self, life: Life, kind: str, run: Path, random: random.Random) -> None:
        if kind == "kill":
            life.send(signal.SIGKILL)
        elif kind == "rank":
            life.send(signal.SIGKILL, [random.randrange(len(life.pids))])
        elif kind in ("term", "int"):
            life.send(signal.SIGTERM if kind == "term" else signal.SIGINT)
        elif kind == "stop":
            ranks = random.choice([None, [0]])
            life.send(signal.SIGSTOP, ranks)
            time.sleep(random.uniform(0, 0.2))
            life.send(signal.SIGCONT, ranks)
        else:
            _fill(run.parent)


def _fixed(work: Path) -> dict[str, Any]:
    return {
        "model": str(work / "base"),
        "data": str(work / "data"),
        "task": "sst2",
        "batch_size": 3,
        "learning_rate": 1e-3,
        "lora_rank": 2,
        "prefix_tokens": 2,
        "cone_warmup": 5,
        "history": 8,
        "rank_timeout": 20.0,
        "matmul": "torch",
        "stop_on_explosion": False,
    }


def what_counts(run: Path) -> dict[str, Any]:
    """All that must be equal of two runs, by name."""
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


def _done(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b'"kind": "step"')
    except OSError:
        return 0


def _reason(said: str) -> str:
    """A refusal without its numbers and places."""
    line = next((line for line in said.splitlines() if "error: " in line), said.strip()[-200:])
    return line.partition("error: ")[2][:80]


def _fill(disk: Path) -> None:
    """Leave no page free; the run may take one meanwhile."""
    while True:
        now = os.statvfs(disk)
        used = max(1, now.f_blocks - now.f_bfree) * now.f_frsize
        with contextlib.suppress(subprocess.CalledProcessError):
            return _mount("-o", f"remount,size={used}", "tmpfs", str(disk))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _umount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def prepare(work: Path) -> None:
    """A tiny model, reviews, and everything imported."""
    import torch

    torch.set_num_threads(1)
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import torch.distributed
    from tests.cli import toy
    from tests.resumed import base

    from mezo import outcome, trajectory
    from mezo.cli import main

    trajectory.BLOCK_RECORDS = 4
    outcome.write_plots = lambda run: None  # a second each, and no part of what is compared
    base(work / "base")
    toy.reviews(work / "data")
    for tuning in ("full", "lora", "prefix"):  # here, too, so that lives find compiled what they need
        config = work / "warm.yaml"
        config.write_text(json.dumps({**_fixed(work), "tuning": tuning, "dtype": "bfloat16", "num_steps": 3}))
        with (
            (work / "said").open("w") as out,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            assert main(["train", "--config", str(config), "--output", str(work / "warm" / tuning)]) == 0


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
    """Until there were so many deaths, or the time is over."""
    prepare(work)
    found, end = Soak(work, seed, mounts), time.monotonic() + seconds
    for number in _counted_from(first):
        if found.deaths.total() >= deaths or time.monotonic() > end:
            return found
        found.run(number, min(per_run, deaths - found.deaths.total()))
    raise AssertionError


def _counted_from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--deaths", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further run after that")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for what differed")
    parser.add_argument("--mounts", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.mounts:
        from tests.test_failures_disk import apart

        if (how := apart()) is not None:  # again, where a file system of its own is allowed
            os.execvp(how[0], [*how, sys.executable, *sys.argv, "--mounts"])
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


if __name__ == "__main__":
    sys.exit(main())
