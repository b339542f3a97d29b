"""The population measurement on engines that serve: LoRA, an adapter for every probe, all in one call.

`plain` is the engine's own generation with one adapter, theta's, that stays loaded; `base` without one. `population` is what a
step does: the adapters are made, handed to the engine, asked, and taken back.

Every round has prompts of its own, and those of the plain rows all differ, so that no case finds a prompt in the engine's cache.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.engine import environment
from benchmarks.report import Row
from benchmarks.timing import Note, Spread, interleaved, spreads
from mezo.build.setup import base_model, set_up
from mezo.config import MeZOConfig
from mezo.engines.registry import check
from mezo.engines.serving.backend import Ask, Tokens
from mezo.engines.serving.engine import ServingEngine
from mezo.objectives import objective_named
from mezo.scoring import Example
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

if TYPE_CHECKING:
    from benchmarks.population import Options

_LENGTH = 64  # of the engine's rows at least


def measure_served(options: "Options", dtype: str, probes: Sequence[Probe], count: int, note: Note) -> Row:
    """Raises MezoError for an engine that is not available. count: cores that it gets."""
    config = MeZOConfig.build(
        model=options.model,
        dtype=dtype,
        engine=options.engine,
        tuning="lora",
        estimator="es",
        num_directions=len(probes) // 2,
        max_length=max(_LENGTH, options.length),
        max_new_tokens=options.tokens,
        stop=(),
        server_args={"sleep_on_idle": True} if options.engine == "sglang" else {},
    )
    check(config)
    with environment({}, count):
        base = base_model(config, None, None, note)
        engine = set_up(config, base, objective_named("length(most=80)")).engine
        assert isinstance(engine, ServingEngine)
        try:
            return _measured(engine, len(base.tokenizer), probes, options)
        finally:
            engine.close()


def _measured(engine: ServingEngine, vocabulary: int, probes: Sequence[Probe], options: "Options") -> Row:
    rows, writing = options.prompts * len(probes), Writing(options.tokens, ())
    written: list[int] = []
    whole = engine.backend.write

    def counting(asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        found = whole(asks, writing)
        written.append(sum(map(len, found)))
        return found

    engine.backend.write = counting

    def examples(number: int, case: int, size: int) -> list[Example]:
        generator = torch.Generator().manual_seed(((options.seed << 16) + number) * 4 + case)
        drawn = torch.randint(5, vocabulary, (size, options.length), generator=generator).tolist()
        return [Example(tuple(row), ((5,),), 0, fields={}) for row in drawn]

    def one_by_one(number: int) -> None:
        for probe in probes:
            engine.losses(examples(number, 3, options.prompts), [probe])

    cases: dict[str, Callable[[int], Any]] = {
        "plain": lambda n: engine.losses(examples(n, 0, rows), [THETA]),
        "population": lambda n: engine.losses(examples(n, 1, options.prompts), probes),
        "base": lambda n: engine.backend.write([Ask(e.prompt) for e in examples(n, 2, rows)], writing),
    }
    if options.in_turn:
        cases["one by one"] = one_by_one
    counts: dict[str, list[int]] = {name: [] for name in cases}

    def counted(name: str) -> Callable[[int], None]:
        def call(number: int) -> None:
            written.clear()
            cases[name](number)
            if number:
                counts[name].append(sum(written))

        return call

    seconds = interleaved({name: counted(name) for name in cases}, options.rounds)
    rates = {name: [n / s for n, s in zip(counts[name], own, strict=True)] for name, own in seconds.items()}
    return {
        "rows": rows,
        "tokens": rows * options.tokens,
        "seconds": spreads(seconds),
        "tokens_per_second": {name: round(Spread.of(own).median, 1) for name, own in rates.items()},
        "ratios": {
            f"population_over_{name.replace(' ', '_')}": Spread.of(
                [a / b for a, b in zip(rates["population"], own, strict=True)]
            ).as_dict()
            for name, own in rates.items()
            if name != "population"
        },
    }
