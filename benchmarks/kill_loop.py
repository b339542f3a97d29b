"""SIGKILL at random moments of one run, resumed each time, until it is done; then every byte is compared.

    python benchmarks/kill_loop.py --kills 100

Each of the processes is a fork of one that has imported everything, so that a life costs a second rather
than ten; they are killed for all that. One in four is killed at any time while it loads and resumes; the others
some steps after those of the life before, so that the kills fall all over the steps, evaluations and
snapshots of the run. Exits with 1 if the killed run is not the one never killed.
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
    drawn, died_at = random.Random(seed), [0]
    while True:
        child = context.Process(target=live, args=(str(killed), config))
        child.start()
        if len(died_at) <= kills:
            ahead = drawn.randint(0, max(1, round(1.6 * steps / kills)))
            _wait(child, killed, min(died_at[-1] + ahead, steps - 1), drawn)
        else:
            child.join()
        if child.exitcode is not None:
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        died_at.append(_done(killed))
    last = context.Process(target=live, args=(str(whole), config))
    last.start()
    last.join()
    codes = {"killed": child.exitcode, "whole": last.exitcode}
    equal = codes == {"killed": 0, "whole": 0} and _counted(killed) == _counted(whole)
    return {"equal": equal, "kills": len(died_at) - 1, "died_at": died_at[1:], "exit": codes}


def _wait(child: Any, folder: Path, target: int, drawn: random.Random) -> None:
    """Until a moment to kill the process at, or its own end."""
    if drawn.random() < 0.25:
        child.join(drawn.uniform(0, 2))
        return
    while child.exitcode is None and _done(folder) <= target:
        child.join(0.002)
    child.join(drawn.uniform(0, 0.05))


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
    return 0 if found["equal"] else 1


if __name__ == "__main__":
    # as a module of that name, so that the processes find what they are to call
    from benchmarks import kill_loop as module

    sys.exit(module.main())
