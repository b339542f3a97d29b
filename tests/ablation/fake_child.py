"""Stands in for the process of a run: made-up numbers in a moment, and mishaps by epsilon.

Started as `python fake_child.py REQUEST.json`. Each start is a line of FAKE_STARTS, each end of FAKE_ENDS.
It writes files as they are on disk, without what reads them: importing that takes longer than all the rest.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mezo.ablation.run.processes import end_with_parent

RAISES, KILLED, BROKEN = 0.5, 0.25, 0.125  # epsilons


def note(variable: str, text: str) -> None:
    with Path(os.environ[variable]).open("a") as file:
        file.write(f"{text}\n")


def metrics(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps that change nothing; an accuracy that rises, falls with epsilon, and differs by seed."""
    steps, found = config["num_steps"], []
    for step in range(steps + 1):
        if step % config["eval_every"] == 0 or step == steps:
            score = round(0.5 + 0.4 * step / steps - config["epsilon"] + 0.01 * config["seed"], 6)
            judged = {"accuracy": score, "loss": 1 - score, "metrics": {"accuracy": score}}
            found.append(
                {"kind": "eval", "step": step, "split": "validation", "examples": 8, "seconds": 0.1, **judged}
            )
        if step < steps:
            made = {
                "loss": 1.0,
                "learning_rate": 1e-3,
                "projected_grads": [1.0],
                "seconds": 0.25,
                "tokens": 10,
            }
            found.append({"kind": "step", "step": step, **made})
    return found


def main(path: Path) -> None:
    config, folder = json.loads(path.read_text())["config"], path.parent
    key = folder.name.split(".")[0]
    note("FAKE_STARTS", f"{key} {config['device']} {os.environ.get('OMP_NUM_THREADS')}")
    if config["epsilon"] == RAISES:
        print("mezo: error: the loss is not finite\n")
        sys.exit(2)
    if config["epsilon"] == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if config["epsilon"] == BROKEN:
        raise RuntimeError("out of\tmemory")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics(config)))
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    outcome = {
        "seconds": 3.6,
        "forward_passes": 2 * config["num_steps"],
        "peak_memory_bytes": 10**9,
        "device": "cpu",
    }
    (folder / "process.json.new").write_text(json.dumps({**outcome, "versions": {"mezo": "0"}}))
    (folder / "process.json.new").rename(folder / "process.json")
    note("FAKE_ENDS", key)


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]))
