"""`python -m benchmarks prefix`: what computing shared beginnings once saves, and whether it changes anything."""

from collections.abc import Callable, Sequence
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
    Model,
    OwnSize,
    Rounds,
    Seed,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.passages import WORKLOADS, distinct_tokens, examples_for
from benchmarks.reference import Padded
from benchmarks.report import Column, Report, Row, of_ratio, of_seconds
from benchmarks.timing import Note, interleaved, ratio, spreads, threads
from benchmarks.workload import Tuned, copied, model_for, tuned
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example, pose
from mezo.types import Draw, Probe

OBJECTIVE = "candidate-ce"
EPSILON = 1e-3


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtype: str = "float32"
    tuning: str = "full"
    data: str | None = None
    batch_size: int | None = None  # None: the workload's own
    max_length: int = 1024
    bare: bool = False
    rounds: int = 7
    threads: int | None = None
    seed: int = 0
    workloads: Sequence[str] = field(default=tuple(WORKLOADS))


def command(
    model: Model = "smollm2-135m",
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(DTYPE_NAMES)}.")] = "float32",
    tuning: Annotated[str, typer.Option(help=f"One of {', '.join(TUNINGS)}.")] = "full",
    workload: Annotated[Many, typer.Option(help="Of: icl, boolq, multirc, record, copa.")] = None,
    data: Data = None,
    batch_size: OwnSize = None,
    max_length: Annotated[int, typer.Option(min=64, help="Longer passages lose their end.")] = 1024,
    bare: Annotated[bool, typer.Option("--bare", help="Also against two bare forward passes.")] = False,
    rounds: Rounds = 7,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """What computing shared beginnings of rows once saves, and whether it changes the losses."""
    options = Options(
        model=model,
        dtype=known([dtype], DTYPE_NAMES, "dtype")[0],
        tuning=known([tuning], TUNINGS, "tuning mode")[0],
        data=data,
        batch_size=batch_size,
        max_length=max_length,
        bare=bare,
        rounds=rounds,
        threads=threads,
        seed=seed,
        workloads=known(workload or WORKLOADS, WORKLOADS, "workload"),
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Measure every workload; raises MezoError for one that is not available."""
    rows = []
    with threads(options.threads) as count:
        plain = model_for(options.model, options.dtype)
        ours = tuned(copied(plain) if options.bare else plain, options.tuning)
        for name in options.workloads:
            note(name)
            batch, made_of = examples_for(
                name,
                plain,
                data=options.data,
                batch_size=options.batch_size,
                max_length=options.max_length,
                seed=options.seed,
            )
            row = measure(batch, plain, ours, options)
            rows.append({"workload": name, "batch": made_of, **row})
    notes = (
        "tokens: of both probes of a pair; computed holds padding too.",
        "tokens alone allow: asked over those that have a history of their own, without padding.",
    )
    return Report("prefix", vars(options), rows, _COLUMNS, count, notes)


def measure(batch: Sequence[Example], plain: LoadedModel, ours: Tuned, options: Options) -> Row:
    """The losses of one probe pair, with sharing and without, on the same weights."""
    probes = TwoPoint(EPSILON).ask(Draw(0, (options.seed,)))
    engines = {name: ours.engine(OBJECTIVE, share_prefixes=name == "shared") for name in ("shared", "apart")}
    counted = {name: _counted(engine, batch, probes) for name, engine in engines.items()}
    cases: dict[str, Callable[[int], object]] = {
        name: lambda _, engine=engine: engine.losses(batch, probes) for name, engine in engines.items()
    }
    if options.bare:
        padded = Padded(batch, OBJECTIVES[OBJECTIVE], ours.pad)
        cases["bare"] = lambda _: [padded.logits(plain.model) for _ in probes]
    seconds = interleaved(cases, options.rounds)
    rows = pose(batch).rows
    asked, own = sum(map(len, rows)), distinct_tokens(rows)
    tokens = counted["shared"]["tokens"]
    ratios = {"apart_over_shared": ratio(seconds, "apart", "shared").as_dict()}
    if options.bare:
        ratios["shared_over_bare"] = ratio(seconds, "shared", "bare").as_dict()
        ratios["apart_over_bare"] = ratio(seconds, "apart", "bare").as_dict()
    return {
        "tokens": tokens,
        "tokens_apart": counted["apart"]["tokens"],
        "reuse_rate": round(tokens["reused"] / max(1, tokens["asked"]), 4),
        "tokens_allow": round(asked / own, 3),
        "of_what_tokens_allow": round(ratios["apart_over_shared"]["median"] / (asked / own), 3),
        "largest_loss_difference": max(
            abs(a - b) for a, b in zip(counted["shared"]["losses"], counted["apart"]["losses"], strict=True)
        ),
        "seconds": spreads(seconds),
        "ratios": ratios,
    }


def _counted(engine: Any, batch: Sequence[Example], probes: Sequence[Probe]) -> dict[str, Any]:
    """The losses, and what computing them alone added to the engine's counters."""
    names = ("asked", "computed", "reused")
    before = {name: getattr(engine.counts, name) for name in names}
    losses = engine.losses(batch, probes)
    return {
        "losses": losses,
        "tokens": {name: getattr(engine.counts, name) - before[name] for name in names},
    }


_COLUMNS = (
    Column("workload", lambda row: row["workload"]),
    Column("batch", lambda row: row["batch"]),
    Column("tokens asked", lambda row: str(row["tokens"]["asked"])),
    Column("computed", lambda row: str(row["tokens"]["computed"])),
    Column("reused", lambda row: f"{100 * row['reuse_rate']:.1f}%"),
    Column("apart, s", of_seconds("apart")),
    Column("shared, s", of_seconds("shared")),
    Column("speed-up", of_ratio("apart_over_shared")),
    Column("tokens alone allow", lambda row: f"{row['tokens_allow']:.2f}"),
    Column("shared / two bare", of_ratio("shared_over_bare")),
    Column("loss difference", lambda row: f"{row['largest_loss_difference']:.1e}"),
)
