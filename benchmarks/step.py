"""`python -m benchmarks step`: a whole step, against two bare forward passes and the published step."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from benchmarks.options import (
    DTYPE_NAMES,
    TUNINGS,
    Data,
    Json,
    Many,
    Markdown,
    Rounds,
    Seed,
    Size,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.reference import Padded, reference_step
from benchmarks.report import Column, Report, Row, of_ratio, of_seconds
from benchmarks.text import BATCHES, Stream, stream
from benchmarks.timing import Note, Seconds, interleaved, ratio, spreads, threads
from benchmarks.workload import OPT_SHAPE, Tuned, a_direction_a_row, copied, model_for, pad_of, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.engines.perturb import matmul
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES

EPSILON, LEARNING_RATE = 1e-3, 1e-6  # their values do not affect the time

MEZO, PLAIN, BARE, REFERENCE, REFERENCE32 = "mezo", "mezo-mm", "bare", "reference", "reference-float32"
ROWS = "rows"
CASES = {
    MEZO: "a step of this package",
    PLAIN: "the same with its float32 products left to torch.mm",
    ROWS: "a step with a direction for every row, of rank-one signs",
    BARE: "two forward passes of the transformers model, right-padded, full logits",
    REFERENCE: "a step as the published implementation takes it",
    REFERENCE32: "that step in float32, for a setting in 16 bits",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table."""

    model: str
    dtype: str
    tuning: str
    batch: str


HEADLINES = (
    Setting("opt-125m-shape", "float32", "full", "synthetic"),
    Setting("smollm2-135m", "float32", "full", "sst2"),
    Setting("smollm2-135m", "bfloat16", "full", "sst2"),
    Setting("smollm2-135m", "float32", "lora", "sst2"),
    Setting("smollm2-135m", "bfloat16", "lora", "sst2"),
)


@dataclass(frozen=True)
class Options:
    data: str | None = None
    batch_size: int = 16
    length: int = 64
    rounds: int = 7
    threads: int | None = None
    seed: int = 0
    cases: Sequence[str] = field(default=tuple(CASES))


def command(
    model: Annotated[Many, typer.Option(help="A folder, smollm2-135m, or opt-125m-shape.")] = None,
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(DTYPE_NAMES)}.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(TUNINGS)}.")] = None,
    batch: Annotated[Many, typer.Option(help="Of: synthetic (random rows), sst2 (text).")] = None,
    case: Annotated[Many, typer.Option(help="What to time; all by default.")] = None,
    data: Data = None,
    batch_size: Size = 16,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a synthetic row.")] = 64,
    rounds: Rounds = 7,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """A whole step against two bare forward passes and against the published implementation's step."""
    settings = HEADLINES
    if model or dtype or tuning or batch:
        settings = tuple(
            Setting(m, d, t, b)
            for m in model or ["smollm2-135m"]
            for d in known(dtype or ["float32"], DTYPE_NAMES, "dtype")
            for t in known(tuning or ["full"], TUNINGS, "tuning mode")
            for b in known(batch or batches_of(m), BATCHES, "batch")
        )
    cases = known(case or CASES, CASES, "case")
    options = Options(data, batch_size, length, rounds, threads, seed, cases)
    show(run(settings, options, progress), as_json, markdown)


def run(settings: Sequence[Setting], options: Options, note: Note = lambda text: None) -> Report:
    """Measure every setting; raises MezoError for one that is not available."""
    rows = []
    with threads(options.threads) as count:
        for setting in settings:
            note(" ".join((setting.model, setting.dtype, setting.tuning, setting.batch)))
            rows.append(measure(setting, options))
    by_row = [Column("by row / step", of_ratio("rows_over_step"))] if ROWS in options.cases else []
    return Report("step", vars(options), rows, (*_COLUMNS, *by_row), count)


def batches_of(model: str) -> tuple[str, ...]:
    """The default batches of a model: text if it has a tokenizer."""
    return ("synthetic",) if model == OPT_SHAPE else ("sst2",)


def measure(setting: Setting, options: Options) -> Row:
    plain = model_for(setting.model, setting.dtype)
    batches = stream(
        setting.batch,
        plain,
        data=options.data,
        batch_size=options.batch_size,
        length=options.length,
        seed=options.seed,
    )
    cases = {
        name: case for name, case in _cases(setting, plain, batches, options).items() if name in options.cases
    }
    seconds = interleaved(cases, options.rounds)
    return {
        "model": setting.model,
        "dtype": setting.dtype,
        "tuning": setting.tuning,
        "batch": batches.name,
        "seconds": spreads(seconds),
        "ratios": ratios(seconds),
    }


def ratios(seconds: Seconds) -> dict[str, Any]:
    """All ratios of two measured cases."""
    pairs = {
        "step_over_bare": (MEZO, BARE),
        "rows_over_step": (ROWS, MEZO),
        "mm_step_over_bare": (PLAIN, BARE),
        "reference_over_bare": (REFERENCE, BARE),
        "reference_over_step": (REFERENCE, MEZO),
        "reference_over_mm_step": (REFERENCE, PLAIN),
        "reference_float32_over_step": (REFERENCE32, MEZO),
    }
    return {
        name: ratio(seconds, *pair).as_dict()
        for name, pair in pairs.items()
        if pair[0] in seconds and pair[1] in seconds
    }


def _cases(
    setting: Setting, plain: LoadedModel, batches: Stream, options: Options
) -> dict[str, Callable[[int], object]]:
    """What is timed, by name. A case that writes weights has its own copy of the model."""
    wanted = options.cases
    made: dict[str, Callable[[int], object]] = {}
    if MEZO in wanted or PLAIN in wanted:
        ours = tuned(copied(plain), setting.tuning).engine(batches.objective)

        def step(number: int, inside: Callable[[], Any] = nullcontext) -> None:
            with inside():
                mezo_step(
                    ours,
                    TwoPoint(EPSILON),
                    [batches.batch(number)],
                    draw_of(options.seed, number, 1),
                    LEARNING_RATE,
                )

        made[MEZO] = step
        if setting.dtype == "float32":
            made[PLAIN] = lambda number: step(number, matmul.plain)
    if ROWS in wanted:
        by_row = tuned(copied(plain), setting.tuning, "rank-one").engine(batches.objective)
        made[ROWS] = lambda number: mezo_step(
            by_row,
            a_direction_a_row(EPSILON),
            [batches.batch(number)],
            draw_of(options.seed, number, options.batch_size),
            LEARNING_RATE,
        )
    if BARE in wanted:
        made[BARE] = lambda number: _bare(plain, batches, number)
    if REFERENCE in wanted:
        made[REFERENCE] = _reference(tuned(copied(plain), setting.tuning), batches)
    if REFERENCE32 in wanted and setting.dtype != "float32":
        made[REFERENCE32] = _reference(tuned(model_for(setting.model, "float32"), setting.tuning), batches)
    return made


def _bare(plain: LoadedModel, batches: Stream, number: int) -> None:
    padded = Padded(batches.batch(number), OBJECTIVES[batches.objective], pad_of(plain))
    for _ in range(2):
        padded.logits(plain.model)


def _reference(model: Tuned, batches: Stream) -> Callable[[int], object]:
    def step(number: int) -> None:
        padded = Padded(batches.batch(number), OBJECTIVES[batches.objective], model.pad)
        reference_step(
            model.parameters, lambda: padded.loss(model.model), lr=LEARNING_RATE, eps=EPSILON, seed=number
        )

    return step


_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("dtype", lambda row: row["dtype"]),
    Column("tuning", lambda row: row["tuning"]),
    Column("batch", lambda row: row["batch"]),
    Column("step, s", of_seconds(MEZO)),
    Column("two bare, s", of_seconds(BARE)),
    Column("reference, s", of_seconds(REFERENCE)),
    Column("step / two bare", of_ratio("step_over_bare")),
    Column("with torch.mm", of_ratio("mm_step_over_bare")),
    Column("reference / step", of_ratio("reference_over_step")),
    Column("float32 reference / step", of_ratio("reference_float32_over_step")),
)
