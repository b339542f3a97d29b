"""The population measurement on engines that serve: an adapter for every probe, all in one call.

`population` is what a step does: the adapters are made, handed to the engine, asked, and taken back. Way `lora` tunes an
adapter; `rank-one` tunes the matrices of all linear layers along noise of rank one, so that its adapters are over the model
itself.

    plain   for `lora`, the engine's own generation with one adapter, theta's, that stays loaded; for `rank-one`, that of
            another engine of the same kind, started on the same model without room for adapters and as it comes
    base    the generation of the measured engine itself, without an adapter

Every round has prompts of its own, and those of the plain rows all differ, so that no case finds a prompt in the engine's cache.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.engine import environment
from benchmarks.report import Row
from benchmarks.timing import Note, Spread, interleaved, spreads
from mezo.build.setup import base_model, set_up
from mezo.config import MeZOConfig
from mezo.engines.registry import check
from mezo.engines.serving.backend import Ask, Backend, Tokens
from mezo.engines.serving.engine import ServingEngine
from mezo.engines.serving.full_adapters import RankOneAdapters
from mezo.engines.serving.meta_model import Outline
from mezo.engines.serving.open import open_backend, spec_of
from mezo.errors import MezoError
from mezo.objectives import objective_named
from mezo.scoring import Example
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

if TYPE_CHECKING:
    from benchmarks.population import Options

_LENGTH = 64  # of the engine's rows at least
_LINEAR = ("_proj",)  # the linear layers of models like Llama


def measure_served(
    options: "Options", dtype: str, way: str, probes: Sequence[Probe], count: int, note: Note
) -> Row:
    """Raises MezoError for an engine that is not available. count: cores that it gets."""
    tuned = dict(tuning="lora") if way == "lora" else dict(tuning="full", noise=way, train=_LINEAR)
    config = MeZOConfig.build(
        model=options.model,
        dtype=dtype,
        engine=options.engine,
        **tuned,
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
        assert isinstance(base, Outline)
        with ExitStack() as opened:
            engine = set_up(config, base, objective_named("length(most=80)")).engine
            opened.callback(engine.close)
            assert isinstance(engine, ServingEngine)
            if way == "lora":
                return _measured(engine, None, len(base.tokenizer), probes, options)
            if not isinstance(engine.placement, RankOneAdapters):
                raise MezoError(
                    f"{options.model}: expected linear layers named {_LINEAR[0]}, all of which take adapters: choose "
                    "another model, or way lora"
                )
            plain = open_backend(replace(spec_of(config, base, None), full=False), config.engine, note)
            opened.callback(plain.close)
            return _measured(engine, plain, len(base.tokenizer), probes, options)


def _measured(
    engine: ServingEngine,
    other: Backend | None,
    vocabulary: int,
    probes: Sequence[Probe],
    options: "Options",
) -> Row:
    """other: the engine of the plain rows; None: the measured one, at theta."""
    rows, writing = options.prompts * len(probes), Writing(options.tokens, ())
    written: list[int] = []

    def counting(backend: Any) -> None:
        whole = backend.write

        def write(asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
            found = whole(asks, writing)
            written.append(sum(map(len, found)))
            return found

        backend.write = write

    for backend in filter(None, (engine.backend, other)):
        counting(backend)

    def examples(number: int, case: int, size: int) -> list[Example]:
        generator = torch.Generator().manual_seed(((options.seed << 16) + number) * 4 + case)
        drawn = torch.randint(5, vocabulary, (size, options.length), generator=generator).tolist()
        return [Example(tuple(row), ((5,),), 0, fields={}) for row in drawn]

    def one_by_one(number: int) -> None:
        for probe in probes:
            engine.losses(examples(number, 3, options.prompts), [probe])

    def bare(backend: Backend, number: int, case: int) -> None:
        backend.write([Ask(e.prompt) for e in examples(number, case, rows)], writing)

    def plain(number: int) -> None:
        if other is None:
            engine.losses(examples(number, 0, rows), [THETA])
        else:
            bare(other, number, 0)

    cases: dict[str, Callable[[int], Any]] = {
        "plain": plain,
        "population": lambda n: engine.losses(examples(n, 1, options.prompts), probes),
        "base": lambda n: bare(engine.backend, n, 2),
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
