"""`python -m benchmarks converge`: seconds and steps to a stated validation loss, against the reference's loop.

Both start from the same weights and use the same batches and settings. They draw noise differently, so
their paths differ. Blocks of steps alternate, so that other load on the machine slows both. Evaluation
is the same code for both, and its time is not counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Any

import typer

from benchmarks.options import (
    DTYPE_NAMES,
    TUNINGS,
    Data,
    Json,
    Many,
    Markdown,
    Model,
    Seed,
    Size,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.reference import Padded, reference_step
from benchmarks.report import Column, Report, Row, of_ratio
from benchmarks.text import sentences, source
from benchmarks.timing import Note, Spread, threads
from benchmarks.workload import Tuned, model_for, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.data import EncodedDataset
from mezo.engines.base import Engine
from mezo.estimators import TwoPoint
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example
from mezo.training.evaluation import evaluate

OBJECTIVE = "candidate-ce"


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtypes: Sequence[str] = ("float32",)  # ours, one comparison each
    reference_dtype: str = "float32"
    tuning: str = "full"
    data: str | None = None
    template: str | None = None
    label_words: str | None = None
    learning_rate: float = 3e-5
    epsilon: float = 1e-3
    batch_size: int = 16
    loss: float = 0.65
    max_steps: int = 400
    eval_every: int = 10
    eval_examples: int = 200
    threads: int | None = None
    seed: int = 0


@dataclass
class Loop:
    """One of the two loops: its step, the engine that evaluates it, and its results so far."""

    step: Callable[[int], object]
    engine: Engine
    blocks: list[float] = field(default_factory=list)  # seconds of each block of steps
    losses: list[float] = field(default_factory=list)  # on the validation examples: before, after each block

    @property
    def seconds(self) -> float:
        return sum(self.blocks)

    def evaluate(self, examples: Sequence[Example]) -> None:
        record = evaluate(self.engine, examples, OBJECTIVES[OBJECTIVE], has_candidates=True)
        self.losses.append(record.loss)

    def advance(self, first: int, last: int) -> None:
        """Take the steps first, ..., last - 1."""
        start = perf_counter()
        for number in range(first, last):
            self.step(number)
        self.blocks.append(perf_counter() - start)


def command(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help="Ours; a race each. Default: float32.")] = None,
    reference_dtype: Annotated[str, typer.Option(help="The reference's.")] = "float32",
    tuning: Annotated[str, typer.Option(help=f"One of {', '.join(TUNINGS)}.")] = "full",
    data: Data = None,
    template: Annotated[str | None, typer.Option(help="A custom prompt, as in mezo train.")] = None,
    label_words: Annotated[str | None, typer.Option(help="Words of the classes, as in mezo train.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Constant, of both.")] = 3e-5,
    epsilon: Annotated[float, typer.Option(help="Of both.")] = 1e-3,
    batch_size: Size = 16,
    loss: Annotated[float, typer.Option(help="The validation loss that is wanted.")] = 0.65,
    max_steps: Annotated[int, typer.Option(min=1, help="Give up after so many.")] = 400,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps of a block.")] = 10,
    eval_examples: Annotated[int, typer.Option(min=1, help="Validation examples.")] = 200,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Seconds and steps to a stated SST-2 validation loss, beside the published implementation's loop."""
    options = Options(
        model=model,
        dtypes=known(dtype or ["float32"], DTYPE_NAMES, "dtype"),
        reference_dtype=known([reference_dtype], DTYPE_NAMES, "dtype")[0],
        tuning=known([tuning], TUNINGS, "tuning mode")[0],
        data=data,
        template=template,
        label_words=label_words,
        learning_rate=learning_rate,
        epsilon=epsilon,
        batch_size=batch_size,
        loss=loss,
        max_steps=max_steps,
        eval_every=eval_every,
        eval_examples=eval_examples,
        threads=threads,
        seed=seed,
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """One comparison for each of `options.dtypes`; raises MezoError for settings that are not available."""
    with threads(options.threads) as count:
        rows = [race(dtype, options, note) for dtype in options.dtypes]
    notes = (
        f"learning rate {options.learning_rate:g}, epsilon {options.epsilon:g}, batches of "
        f"{options.batch_size}, seed {options.seed}, validation loss {options.loss:g} wanted, "
        f"looked at every {options.eval_every} steps",
    )
    return Report("converge", vars(options), rows, _COLUMNS, count, notes)


def race(dtype: str, options: Options, note: Note) -> Row:
    """Run both loops until each has reached the loss or taken all steps."""
    loaded = model_for(options.model, dtype)
    train, validation = (
        sentences(loaded, options.data, split=split, words=options.label_words, template=options.template)
        for split in ("train", "validation")
    )
    train.batch_indices(0, options.batch_size, options.seed)  # raises MezoError if the batch is too large
    seen = validation[: options.eval_examples]
    loops = {
        "mezo": _ours(tuned(loaded, options.tuning), train, options),
        "reference": _theirs(
            tuned(model_for(options.model, options.reference_dtype), options.tuning), train, options
        ),
    }
    for loop in loops.values():
        loop.evaluate(seen)
    for number, first in enumerate(range(0, options.max_steps, options.eval_every)):
        running = [name for name, loop in loops.items() if loop.losses[-1] > options.loss]
        for name in running[:: -1 if number % 2 else 1]:
            loops[name].advance(first, min(first + options.eval_every, options.max_steps))
            loops[name].evaluate(seen)
            note(f"{dtype}: {name}, validation loss {loops[name].losses[-1]:.4f}")
        if not running:
            break
    return {
        "model": options.model,
        "dtype": dtype,
        "reference_dtype": options.reference_dtype,
        "tuning": options.tuning,
        "data": source(options.data),
        "loss_wanted": options.loss,
        **{name: _fared(loop, options) for name, loop in loops.items()},
        "ratios": _ratios(loops["mezo"], loops["reference"], options.loss),
    }


def _fared(loop: Loop, options: Options) -> dict[str, Any]:
    return {
        "reached": loop.losses[-1] <= options.loss,
        "steps": min(len(loop.blocks) * options.eval_every, options.max_steps),
        "seconds": round(loop.seconds, 3),
        "loss": loop.losses[-1],
        "losses": loop.losses,
    }


def _ratios(ours: Loop, theirs: Loop, wanted: float) -> dict[str, Any]:
    """Ratios of the times of blocks that both took; and of the times to the loss, if both reached it."""
    pairs = [b / a for a, b in zip(ours.blocks, theirs.blocks, strict=False)]
    found: dict[str, Any] = {}
    if pairs:
        found["reference_over_mezo_block"] = Spread.of(pairs).as_dict()
    if ours.seconds and ours.losses[-1] <= wanted and theirs.losses[-1] <= wanted:
        found["reference_over_mezo_to_loss"] = round(theirs.seconds / ours.seconds, 3)
    return found


def _ours(model: Tuned, train: EncodedDataset, options: Options) -> Loop:
    engine = model.engine(OBJECTIVE)

    def step(number: int, rate: float = options.learning_rate) -> None:
        mezo_step(
            engine,
            TwoPoint(options.epsilon),
            [train.batch(number, options.batch_size, options.seed)],
            draw_of(options.seed, number, 1),
            rate,
        )

    step(0, 0.0)  # warms up; the weights do not change
    return Loop(step, engine)


def _theirs(model: Tuned, train: EncodedDataset, options: Options) -> Loop:
    engine = model.engine(OBJECTIVE, probes=False)

    def step(number: int, rate: float = options.learning_rate, eps: float = options.epsilon) -> None:
        batch = train.batch(number, options.batch_size, options.seed)
        padded = Padded(batch, OBJECTIVES[OBJECTIVE], model.pad)
        reference_step(
            model.parameters,
            lambda: padded.loss(model.model),
            lr=rate,
            eps=eps,
            seed=1_000_003 * options.seed + number,
        )

    step(0, 0.0, 0.0)
    return Loop(step, engine)


def _to_loss(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        fared = row[name]
        tail = "" if fared["reached"] else f", loss {fared['loss']:.3f}"
        return f"{fared['seconds']:.0f} s, {fared['steps']} steps{tail}"

    return text


def _ratio_to_loss(row: Row) -> str:
    value = row["ratios"].get("reference_over_mezo_to_loss")
    return "" if value is None else f"{value:.2f}"


_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("data", lambda row: row["data"]),
    Column("tuning", lambda row: row["tuning"]),
    Column("dtypes", lambda row: f"{row['dtype']} / {row['reference_dtype']}"),
    Column("start", lambda row: f"{row['mezo']['losses'][0]:.3f}"),
    Column("wanted", lambda row: f"{row['loss_wanted']:g}"),
    Column("mezo", _to_loss("mezo")),
    Column("reference", _to_loss("reference")),
    Column("reference / mezo, to the loss", _ratio_to_loss),
    Column("block by block", of_ratio("reference_over_mezo_block")),
)
