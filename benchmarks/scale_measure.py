"""Two processes of one thread each, measured against one: steps alone, shared, and with the model in two parts.

Started by `python -m benchmarks scale --check` through torchrun. While rank 0 works alone, the other waits for its
message, which takes no CPU time. Rank 0 prints one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.cost import Shape
from benchmarks.workload import full_batch
from mezo import noise
from mezo.algorithm import draw_of, mezo_step
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators.two_point import TwoPoint
from mezo.noise.where import Where
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.parallel.engine import ParallelEngine
from mezo.parallel.group import ProcessGroup, join
from mezo.parallel.tensor_parallel import cut_
from mezo.types import THETA
from mezo.weights.weights import Weights

ROWS, LENGTH = 8, 32  # of a microbatch


def llama(layers: int, hidden: int) -> Any:
    """Random weights, the same in every process; heads that two processes can share."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def engine_of(model: Any) -> TransformersEngine:
    weights = Weights(model.named_parameters())
    return TransformersEngine(model, weights, OBJECTIVES["answer-ce"], SGD(), kind="causal", pad_token_id=0)


def stepper(engine: Any, batches: list[Any]) -> Callable[[int], None]:
    rule = TwoPoint(epsilon=1e-3)

    def step(number: int) -> None:
        mezo_step(engine, rule, batches, draw_of(0, number, 1), 1e-9)

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole, group = llama(options.layers, options.hidden), join(tensor=2, timeout=300.0)
    parameters = sum(p.numel() for p in whole.parameters())
    copies = ProcessGroup(
        group.rank, 2, timeout=group.timeout
    )  # the same two processes, each with all weights
    batches = [full_batch(4096, batch_size=ROWS, length=LENGTH)] * 2
    alone = engine_of(whole)
    shared = ParallelEngine(alone, alone.weights, copies, "data")
    part = llama(options.layers, options.hidden)
    cut_(part, group.part, 2, group.add_up)
    engine = engine_of(part)
    parted = ParallelEngine(engine, engine.weights, group, "data")
    cases = {
        "one": (stepper(alone, batches), True),
        "data": (stepper(shared, batches), False),
        "tensor": (stepper(parted, batches), False),
        "bare": (lambda _: alone.losses(batches[0], [THETA]), True),
        "pair": (lambda _: pair(whole), True),
        "update": (lambda number: alone.weights.update_([number + 1], [1e-9]), True),
        "gather": (lambda _: gathers(copies), False),
        "sums": (lambda _: sums(group, options.hidden), False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(options.rounds + 1):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            work, by_one = cases[name]
            copies.gather(np.zeros(1, dtype=np.int64))
            began = time.perf_counter()
            if group.leads or not by_one:
                work(number)
            took = time.perf_counter() - began
            copies.gather(np.zeros(1, dtype=np.int64))
            if number:
                seconds[name].append(took)
    if group.leads:
        shape = Shape("here", parameters, options.layers, options.hidden)
        counts = {"gather": GATHERS, "sums": SUMS, "bytes_a_step": shared.bytes_a_step}
        print(json.dumps({"shape": vars(shape), "seconds": seconds, **counts}))


GATHERS, SUMS = 200, 8


def gathers(group: ProcessGroup) -> None:
    for _ in range(GATHERS):
        group.gather(np.zeros(3, dtype=np.int64))


def sums(group: ProcessGroup, hidden: int) -> None:
    """Sums of activations of one layer, as large as in a step."""
    activations = torch.zeros(2 * ROWS * LENGTH, hidden)
    for _ in range(SUMS):
        group.add_up(activations)


def pair(model: Any) -> None:
    """Both perturbed values of every element, block by block into the same memory, as a pass makes them."""
    for number, p in enumerate(p for p in model.parameters() if p.dim() == 2):
        rows = max(1, (1 << 18) // p.shape[1])
        plus, minus = torch.empty(rows, p.shape[1]), torch.empty(rows, p.shape[1])
        for start in range(0, p.shape[0], rows):
            block = p.detach()[start : start + rows]
            where = Where(number, start * p.shape[1])
            noise.perturb_pair(block, where, 7, 1e-3, plus[: len(block)], minus[: len(block)])


if __name__ == "__main__":
    main()
