"""How much of two processes' time a shared step uses: two processes of one thread against one.

    python -m benchmarks scaling --rounds 7
    python -m benchmarks scaling --tuning lora --dtype bfloat16

One process does a step of two microbatches; then two processes share it, one microbatch each. Both in turn,
round after round, in the same two processes: while the first works alone, the second waits for its message,
which takes no processor. Efficiency is T1 / (2 T2), round by round. Needs two idle cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.processes import environment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tuning", choices=("full", "lora"), default="full")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a microbatch")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=7, help="that count, after one that does not")
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure(options)
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    again = ["-m", "benchmarks", "scaling", *sys.argv[1:]]
    done = subprocess.run([sys.executable, *launcher, *again], env=environment(OMP_NUM_THREADS="1"))
    sys.exit(done.returncode)


def measure(options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from benchmarks.timing import Spread
    from benchmarks.workload import full_batch, model_for, tuned
    from mezo.algorithm import draw_of, mezo_step
    from mezo.estimators.two_point import TwoPoint
    from mezo.parallel.engine import ParallelEngine
    from mezo.parallel.group import join

    torch.set_num_threads(1)
    group = join(timeout=300.0)
    ready = tuned(model_for(options.model, options.dtype), options.tuning)
    alone: Any = ready.engine("answer-ce")
    together = ParallelEngine(alone, ready.weights, group, "data")
    vocabulary = alone.head_module.weight.shape[0]
    rows = full_batch(vocabulary, batch_size=2 * options.batch_size, length=options.length)
    batches = [rows[: options.batch_size], rows[options.batch_size :]]
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    for number in range(options.rounds + 1):
        for case in ("one", "two")[:: -1 if number % 2 else 1]:
            engine = alone if case == "one" else together
            group.gather(np.zeros(1, dtype=np.int64))
            began = time.perf_counter()
            if case == "two" or group.leads:
                mezo_step(engine, TwoPoint(epsilon=1e-3), batches, draw_of(0, number, 1), 0.0)
            took = time.perf_counter() - began
            group.gather(np.zeros(1, dtype=np.int64))
            if number:
                seconds[case].append(took)
    if group.leads:
        efficiency = Spread.of([a / (2 * b) for a, b in zip(seconds["one"], seconds["two"], strict=True)])
        found = {
            "options": vars(options),
            "seconds": {case: Spread.of(times).as_dict() for case, times in seconds.items()},
            "efficiency": efficiency.as_dict(),
            "bytes_a_step": together.bytes_a_step,
        }
        print(json.dumps(found))
