"""SIGKILL at random moments of one run, resumed each time, until it is done; then every byte is compared.

    python benchmarks/kill_loop.py --kills 100

Each of the processes is a fork of one that has imported everything, so that a life costs a second rather
than ten; they are killed for all that. The goals of the lives are spread over the run's steps, the last tenth
of them over what it writes at its end. A life is killed just after its goal; one in four, and each that begins
beyond its goal, while it loads and resumes, which is where a run that is ahead waits for the others. So the
kills fall all over the run, and it does not end before there were as many as asked for. Exits with 1 if the
killed run is not the one never killed, or was not killed so often.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
AT_THE_END = 0.3  # seconds after the last step: weights, plots and card take more than a second
sys.path[:0] = [str(ROOT)]


def live(folder: str, config: dict[str, Any]) -> None:
    """One life: begin the run, or go on with it, to its end or to that of this process."""
    import torch
    from tests.resumed import trainer

    from mezo.config import MeZOConfig

    torch.set_num_threads(1)
    run = Path(folder)
    begun = (run / "config.yaml").exists()
    made = (
        trainer(None, resume=run, artifacts=True)
        if begun
        else trainer(MeZOConfig.build(**config), output=run, artifacts=True)
    )
    made.train()


def kill_loop(work: Path, kills: int, *, steps: int, seed: int, **settings: Any) -> dict[str, Any]:
    """{"equal", "kills", "died_at": steps done at each death, "exit"}. work: a folder to work in."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.kill_loop", "tests.resumed", "torch", "peft", "mezo.trainer"])
    model, killed, whole = work / "base", work / "killed", work / "whole"
    maker = context.Process(target=_make, args=(str(model),))
    maker.start()
    maker.join()
    config = dict(
        model=str(model),
        task="sst2",
        batch_size=3,
        num_steps=steps,
        learning_rate=1e-3,
        eval_every=7,
        snapshot_every=10,
        seed=seed,
        **settings,
    )
    drawn, died_at, loading = random.Random(seed), [0], 1.0
    while True:
        child = context.Process(target=live, args=(str(killed), config))
        child.start()
        if (life := len(died_at)) <= kills:
            goal = min(round(steps * life / (0.9 * kills)), steps)
            if died_at[-1] >= goal < steps or drawn.random() < 0.25:
                child.join(drawn.uniform(0, loading))
            else:
                loading = _wait(child, killed, died_at[-1], goal) or loading
                child.join(drawn.uniform(0, 0.05 if goal < steps else AT_THE_END))
        else:
            child.join()
        if child.exitcode is not None:
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        died_at.append(_done(killed))
        if life % 10 == 0:
            print(f"killed {life} times of {kills}, at step {died_at[-1]} of {steps}", file=sys.stderr)
    last = context.Process(target=live, args=(str(whole), config))
    last.start()
    last.join()
    codes = {"killed": child.exitcode, "whole": last.exitcode}
    equal = codes == {"killed": 0, "whole": 0} and _counted(killed) == _counted(whole)
    return {"equal": equal, "kills": len(died_at) - 1, "died_at": died_at[1:], "exit": codes}


def _wait(child: Any, folder: Path, before: int, goal: int) -> float | None:
    """Until `goal` steps are done, or the process has ended. Seconds to its first step, if it had one to do."""
    began, first = time.monotonic(), None
    while child.exitcode is None and (done := _done(folder)) < goal:
        if first is None and done > before:
            first = time.monotonic() - began
        child.join(0.002)
    return first


def _make(folder: str) -> None:
    from tests.resumed import base

    base(Path(folder))


def _done(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "step"') if path.exists() else 0


def _counted(folder: Path) -> dict[str, Any]:
    times = {"seconds", "seconds_saved", "profile"}
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {
        "trajectory": (folder / "trajectory.mezo").read_bytes(),
        "metrics": [{k: v for k, v in line.items() if k not in times} for line in lines],
        "model": {p.name: p.read_bytes() for p in (folder / "model").iterdir()},
        "files": sorted(p.name for p in folder.iterdir()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs before the run is left to end")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the run")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_loop(Path(folder), given.kills, steps=given.steps, seed=given.seed)
    print(json.dumps({**found, "seconds": round(time.monotonic() - began)}))
    return 0 if found["equal"] and found["kills"] == given.kills else 1


if __name__ == "__main__":
    # as a module of that name, so that the processes find what they are to call
    from benchmarks import kill_loop as module

    sys.exit(module.main())
