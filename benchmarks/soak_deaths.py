"""The lives of a run of the soak, and the deaths that end them."""

import contextlib
import faulthandler
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 60.0  # seconds that a life may take: processes that wait for a lost one take twice rank_timeout
KINDS = ("kill", "term", "int", "stop", "full", "rank")
# What a life of the kind may end with: -N by signal N. A signal may come before a process listens, or after its last step.
ENDS = {
    "kill": {-9, 0},
    "term": {143, -15, 0},
    "int": {130, -2, 0},
    "full": {2, 0},
    "rank": {-9, 1, 2, 0},
}


class Odd(Exception):
    """An end that the death does not explain."""


@dataclass
class Run:
    """A drawn run: its folders, its settings, and the deaths so far."""

    place: Path
    processes: int
    random: random.Random
    settings: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.place / "config.yaml"

    @property
    def undisturbed(self) -> Path:
        return self.place / "calm" / "whole"

    @property
    def disk(self) -> Path:
        return self.place / "disk"

    @property
    def disturbed(self) -> Path:
        return self.disk / "run"

    def said(self, folder: Path, rank: int = 0) -> str:
        """What the last life in a folder has printed."""
        return (self.place / f"{folder.name}-{rank}.said").read_text()


@dataclass
class Pace:
    """Seconds that the undisturbed run took: up to its first step, for a step, from its last step to its end."""

    loading: float = 1.0
    step: float = 0.01
    ending: float = 0.5


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
        """Wait until it has ended, `until` holds or the time is over; whether it is still alive."""
        end = time.monotonic() + seconds
        while not self.ended():
            if until() or time.monotonic() > end:
                return True
            time.sleep(0.001)
        return False

    def wait_for(self, folder: Path, steps: int) -> None:
        self.wait(LIMIT, lambda: steps_done(folder) >= steps)

    def finish(self) -> bool:
        """Wait for its end. After LIMIT it prints its stacks and is killed: then False."""
        if self.wait(LIMIT):
            self.send(signal.SIGUSR1)
            time.sleep(1)
            self.send(signal.SIGKILL)
            self.wait(LIMIT)
            return False
        return True


def begin(run: Run, folder: Path) -> Life:
    """Fork a life that trains in `folder`: the first one there, or one that resumes."""
    if (folder / "config.yaml").exists():
        arguments = ["train", "--resume", str(folder)]
    else:
        arguments = ["train", "--config", str(run.config), "--output", str(folder)]
    port = _free_port()
    pids = []
    for rank in range(run.processes):
        pid = os.fork()
        if not pid:
            _live(arguments, rank, run.processes, port, run.place / f"{folder.name}-{rank}.said")
        pids.append(pid)
    return Life(pids)


def _live(arguments: list[str], rank: int, processes: int, port: int, said: Path) -> None:
    """What a child does; never returns."""
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
        code = 130  # before the command handles it
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


def steps_done(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b'"kind": "step"')
    except OSError:
        return 0


def die(run: Run, share: float, pace: Pace, mounts: bool, deaths: Counter[str]) -> bool:
    """One life up to a death; True if it came to its end first.

    Args:
        share: of the run's steps, at about which the death falls.
        mounts: whether the run's disk can be filled.
        deaths: counts by kind, to add to.

    Raises:
        Odd: if it ended in a way that the death does not explain.
    """
    random, folder, steps = run.random, run.disturbed, run.settings["num_steps"]
    kinds = [k for k in KINDS if (k != "full" or mounts) and (k != "rank" or run.processes > 1)]
    kind = random.choice(kinds)
    where = random.choice(["start", "step", "step", "end" if share > 0.7 else "step"])
    goal = {"start": 0, "step": round(steps * share) + random.randrange(1, 4), "end": steps}[where]
    if where == "step" and goal <= steps_done(folder):
        where = "start"
    delay = {"start": pace.loading, "step": 3 * pace.step, "end": pace.ending}[where] * random.random()
    life = begin(run, folder)
    if where != "start":
        life.wait_for(folder, goal)
    alive, stopped = life.wait(delay), kind == "stop"
    if alive and stopped:
        _strike(life, kind, run)
        deaths[kind] += 1
        kind = random.choice([k for k in kinds if k != "stop"])
        alive = life.wait(3 * pace.step * random.random())
    if alive:
        _strike(life, kind, run)
    ended = life.finish()
    if kind == "full":
        mount("-o", "remount,size=64m", "tmpfs", str(run.disk))
    codes = set(life.codes.values())
    run.events.append(
        f"{'stop and ' if stopped else ''}{kind} at the {where}, {steps_done(folder)} steps: "
        f"{sorted(life.codes.values())}"
    )
    deaths[kind] += codes != {0}
    said = "".join(run.said(folder, rank) for rank in range(run.processes))
    allowed = ENDS[kind] if alive else {0}
    if run.processes > 1:
        allowed = allowed | {1, 2, 143, 130}  # what the other processes end with
    if not ended or not codes <= allowed or "Traceback" in said:
        raise Odd(f"{run.events[-1]}: {said[-4000:]}")
    return codes == {0}


def _strike(life: Life, kind: str, run: Run) -> None:
    if kind == "kill":
        life.send(signal.SIGKILL)
    elif kind == "rank":
        life.send(signal.SIGKILL, [run.random.randrange(len(life.pids))])
    elif kind in ("term", "int"):
        life.send(signal.SIGTERM if kind == "term" else signal.SIGINT)
    elif kind == "stop":
        ranks = run.random.choice([None, [0]])
        life.send(signal.SIGSTOP, ranks)
        time.sleep(run.random.uniform(0, 0.2))
        life.send(signal.SIGCONT, ranks)
    else:
        _fill(run.disk)


def _fill(disk: Path) -> None:
    """Leave no page free, also if the run takes one meanwhile."""
    while True:
        now = os.statvfs(disk)
        used = max(1, now.f_blocks - now.f_bfree) * now.f_frsize
        with contextlib.suppress(subprocess.CalledProcessError):
            return mount("-o", f"remount,size={used}", "tmpfs", str(disk))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)
