"""Whether engines walk alike: the same `mezo train` on each, and how far projected gradients and results are apart.

    python -m benchmarks engines-agree --engine transformers --engine sglang --engine sglang:2 -- \\
      --model ./my-llama --task sst2 --data ./sst2 --tuning lora --steps 20 --learning-rate 1e-3 --epsilon 1e-2

An engine is a name, with ":2" cut over two workers; the first is what the others are held against. All after
`--` goes to `mezo train`. Compared are the projected gradients of all steps, and the tensors of the adapter or
the model that each run saved, at their largest difference.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from mezo.runs import trajectory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", action="append", required=True, help="name or name:workers; repeatable")
    parser.add_argument("--output", help="folder of the runs; default: a temporary one")
    parser.add_argument("settings", nargs="+", help="after --: options of mezo train")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.output or scratch)
        runs = {name: train(name, folder, given.settings) for name in given.engine}
        first = runs[given.engine[0]]
        for name, run in runs.items():
            print(json.dumps({"engine": name, **apart(first, run)}), flush=True)


def train(engine: str, folder: Path, settings: list[str]) -> Path:
    name, _, workers = engine.partition(":")
    run = folder / engine.replace(":", "-")
    command = [sys.executable, "-m", "mezo", "train", "--engine", name, "--output", str(run), *settings]
    if workers:
        command += ["--tp", workers]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"{engine}: mezo train ended with {done.returncode}")
    return run


def apart(a: Path, b: Path) -> dict[str, Any]:
    """Largest differences, beside the largest values."""
    ours, theirs = (trajectory.read(run / "trajectory.mezo").records for run in (a, b))
    mine, others = weights(a), weights(b)
    if mine.keys() != others.keys() or len(ours) != len(theirs):
        sys.exit(f"{a} and {b} hold other steps or tensors")
    return {
        "steps": len(ours),
        "largest_slope": float(np.abs(ours).max()),
        "slopes_apart": float(np.abs(ours - theirs).max()),
        "largest_weight": max(float(t.abs().max()) for t in mine.values()),
        "weights_apart": max(
            float((t.float() - others[name].float()).abs().max()) for name, t in mine.items()
        ),
        "tensors_equal": sum(t.equal(others[name]) for name, t in mine.items()),
        "tensors": len(mine),
    }


def weights(run: Path) -> dict[str, Any]:
    """Of the adapter/ or model/ folder of a run."""
    files = sorted(run.glob("adapter/*.safetensors")) or sorted(run.glob("model/*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
