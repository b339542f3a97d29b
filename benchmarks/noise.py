"""How fast the noise is on this CPU, beside a bare pass over the same memory and torch's own generator.

    python benchmarks/noise.py [--elements 33554432] [--threads 1 2] [--json FILE]

Every figure is the median of 7 runs after one that is not counted, in G elements/s. "bare" multiplies
the weights by one in place: what reading and writing them costs. "in place" is `perturb` onto the
weight itself, "pair" is `perturb_pair`, "n seeds" is `update_` (stochastic rounding for 16 bits).

Then, for each number of threads: the noise of a layer of SmolLM2-135M (576 x 1536, bfloat16) alone and
right after a matrix product by such a layer, whose threads still hold the cores; and all tensors of a
rank-8 adapter of that model (120 of them, 460,800 elements, float32) in one call. Medians of 201.
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


def milliseconds(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Of `call` alone, each time after `before`: the median of 201."""
    seconds = []
    for _ in range(202):
        before()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e3


def inside_a_step() -> dict[str, float]:
    """Milliseconds of `perturb_pair` of a layer, alone and after a matrix product."""
    inputs, layer = (torch.randn(shape).bfloat16() for shape in ((500, 576), (576, 1536)))
    weight = layer.view(1, -1)
    plus, minus = torch.empty_like(weight), torch.empty_like(weight)

    def pair() -> None:
        noise.perturb_pair(weight, WHERE, 1, 1e-3, plus, minus)

    return {"alone": milliseconds(pair), "after a matrix product": milliseconds(pair, lambda: inputs @ layer)}


def adapter() -> dict[str, float]:
    """Milliseconds of one call for all tensors of a rank-8 adapter of SmolLM2-135M (query, value)."""
    weights = [torch.randn(shape) for _ in range(30) for shape in ((8, 576), (576, 8), (8, 576), (192, 8))]
    group = noise.Group(weights, [Where(i) for i in range(len(weights))])
    plus, minus = ([torch.empty_like(w) for w in weights] for _ in range(2))
    decays = [0.999] * len(weights)
    return {
        "update": milliseconds(lambda: noise.update_all_(group, [1], [1e-6], decays=decays)),
        "pair": milliseconds(lambda: noise.perturb_pair_all(group, 1, 1e-3, plus, minus)),
        "in place": milliseconds(lambda: noise.perturb_all(group, 1, 1e-6, group.weights)),
        "update, a call each": milliseconds(
            lambda: [noise.update_(w, x, [1], [1e-6]) for w, x in zip(weights, group.wheres, strict=True)]
        ),
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
        for what, found in (("layer", inside_a_step()), ("adapter", adapter())):
            name = f"{threads} thread{'s' * (threads > 1)}, {what}"
            figures[name] = {f"{k}, ms": v for k, v in found.items()}
            print(f"{name:36}" + "".join(f"  {k} {v:.3f} ms" for k, v in found.items()), flush=True)
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
