"""What a step of a replay costs: one step at a time, many in a pass over memory, and the bare noise.

    OMP_NUM_THREADS=1 python -m benchmarks replay

SGD with one direction on the shapes of SmolLM2-135M: LoRA of rank 8 on queries and values (120 tensors,
460,800 elements, float32), and all weights (134,515,008 elements) in float32 and in bfloat16 with matched
rounding. The three are timed in turn, in CPU seconds; printed are median, least and most of the rounds, in
nanoseconds an element and step.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch

from mezo import noise
from mezo.config import MeZOConfig
from mezo.noise.where import Where
from mezo.resume.replay_steps import Folding
from mezo.weights.weights import Weights

LAYERS, HIDDEN, INNER, KEYS, VOCABULARY, RANK = 30, 576, 1536, 192, 49152, 8
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def lora() -> Shapes:
    for n in range(LAYERS):
        for name, out in (("q_proj", HIDDEN), ("v_proj", KEYS)):
            yield f"model.layers.{n}.self_attn.{name}.lora_A.weight", (RANK, HIDDEN)
            yield f"model.layers.{n}.self_attn.{name}.lora_B.weight", (out, RANK)


def full() -> Shapes:
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for n in range(LAYERS):
        for name, out in (("q", HIDDEN), ("k", KEYS), ("v", KEYS), ("o", HIDDEN)):
            yield f"model.layers.{n}.self_attn.{name}_proj.weight", (out, HIDDEN)
        yield f"model.layers.{n}.mlp.gate_proj.weight", (INNER, HIDDEN)
        yield f"model.layers.{n}.mlp.up_proj.weight", (INNER, HIDDEN)
        yield f"model.layers.{n}.mlp.down_proj.weight", (HIDDEN, INNER)
        yield f"model.layers.{n}.input_layernorm.weight", (HIDDEN,)
        yield f"model.layers.{n}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def bare(elements: int, steps: int) -> None:
    """As much noise as the replay needs, into memory that stays in a cache."""
    z = torch.empty(1, 1 << 16)
    for block in range(-(-elements * steps // z.numel())):
        noise.fill_(z, Where(1), block)


def measure(name: str, shapes: Shapes, dtype: torch.dtype, steps: int, rounds: int) -> None:
    weights = Weights((key, torch.randn(shape).mul_(0.05).to(dtype)) for key, shape in shapes)
    config = MeZOConfig.build(num_steps=steps, learning_rate=1e-6)
    header = {"config": config.model_dump(mode="json")}
    records = np.random.default_rng(0).normal(size=(steps, 1)).astype(np.float32)

    def step_by_step() -> None:
        folding = Folding(header, weights)
        for record in records:
            folding.apply(folding.next(record))

    ways: dict[str, Callable[[], object]] = {
        "bare noise": lambda: bare(weights.num_elements, steps),
        "one step a pass": step_by_step,
        "many steps a pass": lambda: Folding(header, weights).take(records),
    }
    Folding(header, weights).take(records[:8])  # compiles
    taken = {way: [0.0] * rounds for way in ways}
    for n in range(rounds):
        for way, work in ways.items():
            taken[way][n] = seconds(work) / weights.num_elements / steps * 1e9
    print(f"{name}: {weights.num_elements:,} elements, {steps:,} steps")
    least = median(taken["bare noise"])
    for way, each in taken.items():
        middle = median(each)
        whole = middle * weights.num_elements * 1e-5
        print(
            f"  {way:17s} {middle:6.3f} ({min(each):.3f} to {max(each):.3f}) ns, "
            f"{middle / least:.2f} of bare noise, 10,000 steps in {whole:,.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full-steps", type=int, default=20)
    given = parser.parse_args()
    for steps in (1_000, 10_000):
        measure("LoRA, float32", lora(), torch.float32, steps, given.rounds)
    for dtype in (torch.float32, torch.bfloat16):
        measure(f"full, {str(dtype)[6:]}", full(), dtype, given.full_steps, given.rounds)
