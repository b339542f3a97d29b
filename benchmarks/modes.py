"""`python -m benchmarks modes`: time and peak memory of memory modes and optimizers, against the default.

Times are of whole steps, all ways in turn on the same weights; peaks are of a process for each way,
counted as in `python -m benchmarks memory`. Optimizers that rebuild their moments are timed with a full window.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from benchmarks.memory import Case, peak_in_a_process
from benchmarks.options import (
    DTYPE_NAMES,
    TUNINGS,
    Data,
    Json,
    Many,
    Markdown,
    Model,
    Rounds,
    Seed,
    Size,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.report import Column, Report, Row, of_ratio
from benchmarks.text import BATCHES, stream
from benchmarks.timing import Note, Seconds, Spread, interleaved, ratio, spreads, threads
from benchmarks.workload import Tuned, model_for, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import TwoPoint
from mezo.optimizers import OPTIMIZERS
from mezo.optimizers.history import History
from mezo.types import Direction, Update

EPSILON, LEARNING_RATE = 1e-3, 1e-6


@dataclass(frozen=True)
class Way:
    """A memory mode and an optimizer of a step."""

    held: str = "scratch blocks"  # in addition to the weights, for the table
    optimizer: str = "sgd"
    options: dict[str, Any] = field(default_factory=dict)  # of the engine

    def engine(self, model: Tuned, objective: str) -> TransformersEngine:
        return model.engine(objective, OPTIMIZERS[self.optimizer](), **self.options)


BASE = "materialize"
WAYS = {
    BASE: Way(),
    "regenerate": Way("nothing", options=dict(memory="regenerate")),
    "regenerate-matrix": Way("z of a matrix", options=dict(memory="regenerate", granularity="matrix")),
    "regenerate-block": Way("z of 4,096 elements", options=dict(memory="regenerate", granularity="block")),
    "regenerate-element": Way("z of an element", options=dict(memory="regenerate", granularity="element")),
    "store-layer": Way("z of a layer", options=dict(memory="store-layer")),
    "store": Way("all of z", options=dict(memory="store")),
    "momentum": Way("m", "momentum"),
    "momentum-rebuilt": Way("scratch blocks", "momentum-rebuilt"),
    "adam": Way("m and v", "adam"),
    "adam-rebuilt": Way("scratch blocks", "adam-rebuilt"),
}
SLOW = "regenerate-element"  # a kernel call for every weight: only on request


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtypes: Sequence[str] = ("float32",)
    tunings: Sequence[str] = ("full",)
    batch: str = "synthetic"
    data: str | None = None
    batch_size: int = 16
    rounds: int = 5
    repeats: int = 3
    threads: int | None = None
    seed: int = 0
    ways: Sequence[str] = ()  # (): all but SLOW


def command(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(DTYPE_NAMES)}. Default: float32.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(TUNINGS)}. Default: full.")] = None,
    batch: Annotated[str, typer.Option(help="synthetic (random rows) or sst2 (text).")] = "synthetic",
    way: Annotated[
        Many, typer.Option(help="What to measure beside the default; all but one by default.")
    ] = None,
    data: Data = None,
    batch_size: Size = 16,
    rounds: Rounds = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each way, for the peaks.")] = 3,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Memory modes and optimizers against the default: time of a step and peak memory."""
    options = Options(
        model=model,
        dtypes=known(dtype or ["float32"], DTYPE_NAMES, "dtype"),
        tunings=known(tuning or ["full"], TUNINGS, "tuning mode"),
        batch=known([batch], BATCHES, "batch")[0],
        data=data,
        batch_size=batch_size,
        rounds=rounds,
        repeats=repeats,
        threads=threads,
        seed=seed,
        ways=known(way or (), WAYS, "way"),
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Raises MezoError for a setting that is not available, or where the system does not count peaks."""
    rows: list[Row] = []
    with threads(options.threads) as count:
        for dtype in options.dtypes:
            for tuning in options.tunings:
                rows += measure(dtype, tuning, options, note)
    return Report("modes", vars(options), rows, _COLUMNS, count)


def measure(dtype: str, tuning: str, options: Options, note: Note) -> list[Row]:
    """One row for each way. The default is always included."""
    asked = options.ways or [way for way in WAYS if way != SLOW]
    ways = list(dict.fromkeys((BASE, *asked)))
    peaks = _peaks(ways, dtype, tuning, options, note)
    note(f"{dtype}, {tuning}: {options.rounds} rounds of {len(ways)} steps")
    seconds, made_of = _seconds(ways, dtype, tuning, options)
    middle = statistics.median(peaks[BASE])
    return [
        {
            "model": options.model,
            "dtype": dtype,
            "tuning": tuning,
            "batch": made_of,
            "way": way,
            "held": WAYS[way].held,
            "seconds": spreads({way: seconds[way]}),
            "peak_mb": Spread.of([peak / 1e6 for peak in peaks[way]]).as_dict(),
            "ratios": {
                "time_over_default": ratio(seconds, way, BASE).as_dict(),
                "peak_over_default": Spread.of([peak / middle for peak in peaks[way]]).as_dict(),
            },
        }
        for way in ways
    ]


def _peaks(
    ways: Sequence[str], dtype: str, tuning: str, options: Options, note: Note
) -> dict[str, list[float]]:
    """Bytes: a process for each way and repeat, in turn."""
    peaks: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.repeats):
        note(f"{dtype}, {tuning}: a process of each way, {number + 1} of {options.repeats}")
        for way in ways[:: -1 if number % 2 else 1]:
            case = Case(
                way,
                options.model,
                dtype,
                tuning,
                options.batch,
                options.data,
                options.batch_size,
                options.threads,
                options.seed,
            )
            peaks[way].append(peak_in_a_process(case)["peak"])
    return peaks


def _seconds(ways: Sequence[str], dtype: str, tuning: str, options: Options) -> tuple[Seconds, str]:
    """Times of whole steps, and a description of the batches."""
    loaded = model_for(options.model, dtype)
    batches = stream(
        options.batch,
        loaded,
        data=options.data,
        batch_size=options.batch_size,
        length=64,
        seed=options.seed,
    )
    model = tuned(loaded, tuning)

    def stepping(way: str) -> Callable[[int], object]:
        engine = WAYS[way].engine(model, batches.objective)
        if isinstance(engine.state, History):
            engine.state = _full_window(OPTIMIZERS[WAYS[way].optimizer]().history)  # type: ignore[attr-defined]
        return lambda number: mezo_step(
            engine,
            TwoPoint(EPSILON),
            [batches.batch(number)],
            draw_of(options.seed, number, 1),
            LEARNING_RATE,
        )

    return interleaved({way: stepping(way) for way in ways}, options.rounds), batches.name


def _full_window(size: int) -> History:
    history = History()
    for step in range(size):
        history = history.after(Update(step, LEARNING_RATE, (Direction(step, 1.0),), 1), size)
    return history


_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("dtype", lambda row: row["dtype"]),
    Column("tuning", lambda row: row["tuning"]),
    Column("batch", lambda row: row["batch"]),
    Column("way", lambda row: row["way"]),
    Column("held beside the weights", lambda row: row["held"]),
    Column("peak, MB", lambda row: f"{row['peak_mb']['median']:.0f}"),
    Column("peak / default", of_ratio("peak_over_default")),
    Column("step / default", of_ratio("time_over_default")),
)
