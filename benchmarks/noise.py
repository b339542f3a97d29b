"""How fast the noise is on this CPU, beside a bare pass over the same memory and torch's own generator.

    python benchmarks/noise.py [--elements 33554432] [--threads 1 2] [--json FILE]

Every figure is the median of 7 runs after one that is not counted, in G elements/s. "bare" multiplies
the weights by one in place: what reading and writing them costs. "in place" is `perturb` onto the
weight itself, "pair" is `perturb_pair`, "n seeds" is `update_` (stochastic rounding for 16 bits).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mezo import noise
from mezo.noise import Where

RUNS = 7
WHERE = Where(noise.tensor_id("benchmark"))
KINDS: tuple[noise.Kind, ...] = ("gaussian", "rademacher")


def rate(elements: int, call: Callable[[], object]) -> float:
    """G elements/s, the median of 7."""
    call()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return elements / statistics.median(seconds) / 1e9


def rates(w: torch.Tensor, kind: noise.Kind) -> dict[str, float]:
    n, plus, minus = w.numel(), torch.empty_like(w), torch.empty_like(w)
    return {
        "bare": rate(n, lambda: w.mul_(1.0)),
        "in place": rate(n, lambda: noise.perturb(w, WHERE, 1, 1e-6, w, kind=kind)),
        "pair": rate(n, lambda: noise.perturb_pair(w, WHERE, 1, 1e-6, plus, minus, kind=kind)),
        "1 seed": rate(n, lambda: noise.update_(w, WHERE, [1], [1e-6], kind=kind)),
        "2 seeds": rate(n, lambda: noise.update_(w, WHERE, [1, 2], [1e-6, 1e-6], kind=kind)),
    }


def call_overhead() -> float:
    """Microseconds of one `perturb_pair` of 16 elements: what a small LoRA tensor pays."""
    w = torch.zeros(1, 16)
    plus, minus = torch.empty_like(w), torch.empty_like(w)
    calls = 2000

    def many() -> None:
        for _ in range(calls):
            noise.perturb_pair(w, WHERE, 1, 1e-3, plus, minus)

    return 1e-3 / rate(calls, many)


def main() -> None:
    parser = argparse.ArgumentParser(description="The speed of the noise kernels on this CPU.")
    parser.add_argument("--elements", type=int, default=1 << 25)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, min(2, os.cpu_count() or 1)])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    start = torch.randn(1, arguments.elements)
    print(f"{platform.machine()}, torch {torch.__version__}, {arguments.elements} elements; G elements/s")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for kind in KINDS:
                name = f"{threads} thread{'s' * (threads > 1)}, {str(dtype).removeprefix('torch.')}, {kind}"
                figures[name] = rates(start.to(dtype), kind)
                print(f"{name:36}" + "".join(f"  {k} {v:6.2f}" for k, v in figures[name].items()), flush=True)
    part = torch.empty(1 << 22)
    figures["torch"] = {"normal_": rate(part.numel(), part.normal_)}
    figures["16 elements"] = {"microseconds a call": call_overhead()}
    print(f"torch.normal_ {figures['torch']['normal_']:.2f}")
    print(f"perturb_pair of 16 elements: {figures['16 elements']['microseconds a call']:.1f} us")
    if arguments.json:
        temporary = arguments.json.with_name(arguments.json.name + ".tmp")
        temporary.write_text(json.dumps(figures, indent=1) + "\n")
        os.replace(temporary, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
