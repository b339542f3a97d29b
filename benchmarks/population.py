"""`python -m benchmarks population`: tokens a second of a population's outputs, against one model's.

Both write as many rows of as many tokens in one batch, greedily and without an end. `plain` is transformers' own
`generate` at theta: of the tuned model (for LoRA with its adapter), and for LoRA also of the base alone. `population`
are the same rows, a few for each probe. `whole` (with --shared) are they again, with what the prompts begin with computed
for every row. `one by one` (with --in-turn) are the same
probes in turn, each in a batch of its own. With --engine: `benchmarks.population_served`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer

from benchmarks.engine import ENGINES
from benchmarks.options import (
    DTYPE_NAMES,
    Json,
    Many,
    Markdown,
    Model,
    Rounds,
    Seed,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.population_served import measure_served
from benchmarks.report import Column, Report, Row, of_ratio, of_seconds
from benchmarks.timing import Note, interleaved, ratio, spreads, threads
from benchmarks.workload import Tuned, copied, model_for, tuned
from mezo.engines.counts import Counts
from mezo.engines.perturb.population import Population
from mezo.engines.registry import TRANSFORMERS
from mezo.engines.transformers.generate import Writer, at
from mezo.engines.transformers.together import Together, Wanted
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.types import Probe
from mezo.util.writing import Seeded, Writing

EPSILON = 1e-3
WAYS = {"lora": ("lora", "gaussian"), "rank-one": ("full", "rank-one"), "low-rank": ("full", "low-rank")}

SERVED = ("lora", "rank-one")  # ways whose probes are adapters


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtypes: Sequence[str] = ("float32",)
    ways: Sequence[str] = ("lora", "rank-one")
    members: int = 16
    prompts: int = 4
    length: int = 32
    tokens: int = 32
    shared: int = 0
    in_turn: bool = False
    rounds: int = 5
    threads: int | None = None
    seed: int = 0
    engine: str = TRANSFORMERS


def command(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(DTYPE_NAMES)}. Default: float32.")] = None,
    way: Annotated[Many, typer.Option(help=f"Of: {', '.join(WAYS)}. Default: lora, rank-one.")] = None,
    members: Annotated[int, typer.Option(min=4, help="Probes: two for each direction.")] = 16,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, of which each probe writes after all.")] = 4,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 32,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of an output.")] = 32,
    shared: Annotated[int, typer.Option(min=0, help="Tokens more that all prompts begin with.")] = 0,
    in_turn: Annotated[
        bool, typer.Option("--in-turn", help="Measure one probe after another as well.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="transformers, or adapters on sglang or vllm: MEZO_VLLM_PYTHON and so on.")
    ] = TRANSFORMERS,
    rounds: Rounds = 5,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Tokens a second of a population's outputs, over those of one model's for as many rows."""
    options = Options(
        model=model,
        dtypes=known(dtype or ["float32"], DTYPE_NAMES, "dtype"),
        ways=known(way or ["lora", "rank-one"], WAYS, "way"),
        members=members - members % 2,
        prompts=prompts,
        length=length,
        tokens=tokens,
        shared=shared,
        in_turn=in_turn,
        rounds=rounds,
        threads=threads,
        seed=seed,
        engine=known([engine], ENGINES, "engine")[0],
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Raises MezoError for a model whose probes cannot write together, and for an engine that is not available."""
    rows: list[Row] = []
    if options.engine != TRANSFORMERS:
        if other := [way for way in options.ways if way not in SERVED]:
            raise MezoError(
                f"engine {options.engine!r} takes adapters: way must be {' or '.join(SERVED)}, found {', '.join(other)}"
            )
        with threads(options.threads) as count:
            for dtype in options.dtypes:
                for way in options.ways:
                    note(f"{options.engine}, {dtype}, {way}: {options.rounds} rounds")
                    found = measure_served(options, dtype, way, _probes(options), count, note)
                    rows.append(
                        {"model": options.model, "dtype": dtype, "way": f"{way}, {options.engine}", **found}
                    )
        return Report("population", vars(options), rows, _COLUMNS, count)
    with threads(options.threads) as count, torch.no_grad():
        for dtype in options.dtypes:
            loaded = model_for(options.model, dtype)
            for way in options.ways:
                note(f"{dtype}, {way}: {options.rounds} rounds")
                ours = tuned(copied(loaded), *WAYS[way])
                rows.append(
                    {"model": options.model, "dtype": dtype, "way": way, **measure(ours, loaded, options)}
                )
    return Report("population", vars(options), rows, _COLUMNS, count)


def measure(ours: Tuned, loaded: LoadedModel, options: Options) -> Row:
    writing, model = Writing(options.tokens, ()), ours.model
    model.generation_config.eos_token_id = None
    writer = Writer(model, loaded.tokenizer, pad=ours.pad, max_tokens=1 << 40, counts=Counts())
    writer.ends = []
    generator = torch.Generator().manual_seed(options.seed)
    size = (options.prompts, options.length)
    prompts = torch.randint(5, len(loaded.tokenizer), size, generator=generator).tolist()
    start = torch.randint(5, len(loaded.tokenizer), (options.shared,), generator=generator).tolist()
    prompts = [start + prompt for prompt in prompts]
    probes = _probes(options)
    seeded = [Seeded(0)] * len(prompts)
    parts = [Wanted(probe, prompts, seeded) for probe in probes]
    many = prompts * len(probes)
    population = Population(model, ours.weights)
    together, whole = Together(writer, population, len(many)), Together(writer, population, len(many))
    if not together.agrees(probes):
        raise MezoError(f"{options.model}: its probes cannot write together; choose another model or way")

    def one_by_one(_: int) -> None:
        for part in parts:
            with at(model, ours.weights, part.probe):
                writer(prompts, writing)

    def plain(bare: bool) -> Callable[[int], object]:
        adapterless: Any = model.disable_adapter if bare else contextlib.nullcontext

        def write(_: int) -> None:
            with adapterless():
                writer(many, writing)

        return write

    cases: dict[str, Callable[[int], object]] = {
        "plain": plain(bare=False),
        "population": lambda _: together(parts, writing),
    }
    if options.shared:
        cases["whole"] = lambda _: whole(parts, writing)
    if options.in_turn:
        cases["one by one"] = one_by_one
    if hasattr(model, "disable_adapter"):
        cases["base"] = plain(bare=True)
    seconds = interleaved(cases, options.rounds)
    written = len(many) * options.tokens
    return {
        "rows": len(many),
        "tokens": written,
        "seconds": spreads(seconds),
        "tokens_per_second": {
            name: round(written / sorted(own)[len(own) // 2], 1) for name, own in seconds.items()
        },
        "ratios": {
            f"population_over_{name.replace(' ', '_')}": ratio(seconds, name, "population").as_dict()
            for name in seconds
            if name != "population"
        },
    }


def _probes(options: Options) -> list[Probe]:
    return [Probe(seed, sign * EPSILON) for seed in range(options.members // 2) for sign in (+1, -1)]


_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("dtype", lambda row: row["dtype"]),
    Column("way", lambda row: row["way"]),
    Column("rows", lambda row: str(row["rows"])),
    Column("plain, s", of_seconds("plain")),
    Column("population, s", of_seconds("population")),
    Column("whole, s", of_seconds("whole")),
    Column("one by one, s", of_seconds("one by one")),
    Column("tokens/s over plain", of_ratio("population_over_plain")),
    Column("over the base alone", of_ratio("population_over_base")),
    Column("over whole beginnings", of_ratio("population_over_whole")),
    Column("over one by one", of_ratio("population_over_one_by_one")),
)
