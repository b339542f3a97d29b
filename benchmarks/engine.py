"""`python -m benchmarks engine`: LoRA steps on serving engines, against the transformers engine."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import typer

from benchmarks.options import (
    DTYPE_NAMES,
    Json,
    Many,
    Markdown,
    OwnSize,
    Rounds,
    Seed,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.passages import demonstrated
from benchmarks.report import Column, Report, Row, of_ratio, spread
from benchmarks.text import sentences, source
from benchmarks.timing import Note, Seconds, Spread, interleaved, ratio, threads
from mezo.algorithm import draw_of, mezo_step
from mezo.build.setup import base_model, set_up
from mezo.config import MeZOConfig
from mezo.engines.counts import Counts
from mezo.engines.registry import TRANSFORMERS, check
from mezo.errors import MezoError
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example

ENGINES = (TRANSFORMERS, "sglang", "vllm")
OBJECTIVE = "candidate-ce"
EPSILON, LEARNING_RATE = 1e-2, 1e-3  # their values do not affect the time
MAX_LENGTH = 4096  # tokens of a row, at most

# workload -> examples of a batch. Only the examples of a batch share demonstrations, because the next step has other
# weights: with more examples, demonstrations take less of a step.
WORKLOADS = {"sst2": 16, "icl": 32}
_ABOUT = {"sst2": "", "icl": " behind 16 demonstrations"}


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtype: str = "float32"
    data: str | None = None  # a folder of SST-2's fields; None: the packaged reviews
    engines: Sequence[str] = ()  # (): the transformers engine, and those that are installed
    workloads: Sequence[str] = tuple(WORKLOADS)
    batch_size: int | None = None  # None: the workload's own
    without_cache: bool = False  # also each engine with its cache off
    rounds: int = 5
    threads: int | None = None
    seed: int = 0
    pythons: Mapping[str, str] = field(default_factory=dict)  # engine -> the Python it is installed for


@dataclass
class Case:
    """An engine with its own adapter on the same model, and the results of its steps."""

    name: str
    engine: Any
    loaded: LoadedModel
    tokens: list[Counts] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)

    def step(self, number: int, batch: Sequence[Example], seed: int) -> None:
        before = replace(self.engine.counts)
        draw = draw_of(seed, number, 1)
        _, losses, _ = mezo_step(self.engine, TwoPoint(EPSILON), [batch], draw, LEARNING_RATE)
        self.losses.append(losses)
        if number:
            self.tokens.append(self.engine.counts.since(before))


def command(
    model: Annotated[str, typer.Option("--model", help="A folder, or smollm2-135m.")] = "smollm2-135m",
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(DTYPE_NAMES)}.")] = "float32",
    name: Annotated[
        Many,
        typer.Option("--engine", help="Of: transformers, sglang, vllm. Default: those that are installed."),
    ] = None,
    workload: Annotated[Many, typer.Option(help="Of: sst2, icl (16 demonstrations).")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder of SST-2's fields; none: packaged reviews.")
    ] = None,
    batch_size: OwnSize = None,
    without_cache: Annotated[
        bool, typer.Option("--without-cache", help="Also every engine with its cache off.")
    ] = False,
    sglang_python: Annotated[
        str | None, typer.Option(envvar="MEZO_SGLANG_PYTHON", help="The Python that has SGLang.")
    ] = None,
    vllm_python: Annotated[
        str | None, typer.Option(envvar="MEZO_VLLM_PYTHON", help="The Python that has vLLM.")
    ] = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """LoRA steps a second on engines that serve, beside the transformers engine, and what their caches spare."""
    pythons = {"sglang": sglang_python, "vllm": vllm_python}
    options = Options(
        model=model,
        dtype=known([dtype], DTYPE_NAMES, "dtype")[0],
        data=data,
        engines=known(name or (), ENGINES, "engine"),
        workloads=known(workload or WORKLOADS, WORKLOADS, "workload"),
        batch_size=batch_size,
        without_cache=without_cache,
        rounds=rounds,
        threads=threads,
        seed=seed,
        pythons={engine: python for engine, python in pythons.items() if python},
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Measure every workload; raises MezoError for a requested engine that is not available."""
    rows: list[Row] = []
    with threads(options.threads) as count, environment(options.pythons, count):
        configs = _configs(options, note)
        with contextlib.ExitStack() as stack:
            cases = [_opened(name, config, stack, note) for name, config in configs.items()]
            for workload in options.workloads:
                note(f"{workload}: {options.rounds + 1} steps of {', '.join(case.name for case in cases)}")
                rows += measure(workload, cases, options)
    notes = (
        "reused: of the tokens asked for, those that a cache or a shared computation spared.",
        "every engine walks from the same adapter along the same directions; difference: of losses, at most.",
    )
    return Report("engine", vars(options), rows, _COLUMNS, count, notes)


def measure(workload: str, cases: Sequence[Case], options: Options) -> list[Row]:
    """One row for each engine. The engines take turns on the same batches."""
    size = options.batch_size or WORKLOADS[workload]
    batches = [_batch(workload, cases[0].loaded, size, n, options) for n in range(options.rounds + 1)]
    _check_lengths(workload, batches, cases[0].loaded)
    for case in cases:
        case.tokens, case.losses = [], []
    timed: dict[str, Callable[[int], object]] = {
        case.name: lambda n, case=case: case.step(n, batches[n], options.seed) for case in cases
    }
    seconds = interleaved(timed, options.rounds)
    made_of = f"{size} of {source(options.data)}{_ABOUT[workload]}"
    return [{"workload": workload, "batch": made_of, **_row(case, cases, seconds)} for case in cases]


def _row(case: Case, cases: Sequence[Case], seconds: Seconds) -> Row:
    asked, reused, computed = (
        sum(getattr(counted, name) for counted in case.tokens) / len(case.tokens)
        for name in ("asked", "reused", "computed")
    )
    pairs = {
        "transformers_over_step": (TRANSFORMERS, case.name),
        "uncached_over_step": (_uncached(case.name), case.name),
    }
    return {
        "engine": case.name,
        "seconds": {"step": Spread.of(seconds[case.name]).as_dict()},
        "steps_per_second": Spread.of([1 / s for s in seconds[case.name]]).as_dict(),
        "tokens": {"asked": round(asked), "computed": round(computed), "reused": round(reused)},  # a step
        "hit_rate": round(reused / max(1, asked), 4),
        "largest_loss_difference": max(
            abs(a - b)
            for mine, theirs in zip(case.losses, cases[0].losses, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        ),
        "ratios": {
            name: ratio(seconds, *pair).as_dict() for name, pair in pairs.items() if pair[0] in seconds
        },
    }


def _batch(workload: str, loaded: LoadedModel, size: int, number: int, options: Options) -> list[Example]:
    if workload == "icl":
        return demonstrated(loaded, options.data, size, options.seed + number)
    return sentences(loaded, options.data).batch(number, size, options.seed)


def _check_lengths(workload: str, batches: Sequence[Sequence[Example]], loaded: LoadedModel) -> None:
    text = loaded.model.config.get_text_config()
    room = min(MAX_LENGTH, getattr(text, "max_position_embeddings", None) or MAX_LENGTH)
    longest = max(len(e.prompt) + max(map(len, e.candidates)) for batch in batches for e in batch)
    if longest > room:
        raise MezoError(
            f"workload {workload!r}: a row has {longest} tokens, and {loaded.name} takes {room}; choose another "
            "workload or model"
        )


def _configs(options: Options, note: Note) -> dict[str, MeZOConfig]:
    """case -> its config. Raises MezoError for a requested engine that is not available."""
    found: dict[str, MeZOConfig] = {}
    for engine in options.engines or ENGINES:
        for cache in (True, False) if options.without_cache else (True,):
            config = _config(engine, cache, options)
            try:
                check(config)
            except MezoError as error:
                if options.engines:
                    raise
                note(f"left out: {error}")
                break
            found[engine if cache else _uncached(engine)] = config
    return found


def _config(engine: str, cache: bool, options: Options) -> MeZOConfig:
    # SGLang's scheduler polls all the time, which takes a core from the other engines
    own = {"server_args": {"sleep_on_idle": True}} if engine == "sglang" else {}
    return MeZOConfig.build(
        model=options.model,
        dtype=options.dtype,
        engine=engine,
        tuning="lora",
        task="sst2",
        max_length=MAX_LENGTH,
        enable_kv_cache_optimization=cache,
        seed=options.seed,
        **own,
    )


def _uncached(name: str) -> str:
    return f"{name}, no cache"


def _opened(name: str, config: MeZOConfig, stack: contextlib.ExitStack, note: Note) -> Case:
    base = base_model(config, None, None, note)
    engine = set_up(config, base, OBJECTIVES[OBJECTIVE]).engine
    stack.callback(engine.close)
    return Case(name, engine, base)


@contextlib.contextmanager
def environment(pythons: Mapping[str, str], count: int) -> Iterator[None]:
    """Set the paths of the engines, and give each as many cores as this process has threads."""
    cores = sorted(os.sched_getaffinity(0))[:count] if hasattr(os, "sched_getaffinity") else []
    given = {f"MEZO_{engine.upper()}_PYTHON": python for engine, python in pythons.items()}
    given["OMP_NUM_THREADS"] = str(count)
    if cores:
        bound = ",".join(map(str, cores))
        given |= {"VLLM_CPU_OMP_THREADS_BIND": bound, "SGLANG_CPU_OMP_THREADS_BIND": bound}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_COLUMNS = (
    Column("workload", lambda row: row["workload"]),
    Column("batch", lambda row: row["batch"]),
    Column("engine", lambda row: row["engine"]),
    Column("steps/s", lambda row: spread(row["steps_per_second"])),
    Column("transformers / step", of_ratio("transformers_over_step")),
    Column("tokens a step", lambda row: str(row["tokens"]["asked"])),
    Column("reused", lambda row: f"{100 * row['hit_rate']:.1f}%"),
    Column("tokens saved", lambda row: str(row["tokens"]["reused"])),
    Column("without cache / step", of_ratio("uncached_over_step")),
    Column("difference", lambda row: f"{row['largest_loss_difference']:.1e}"),
)
