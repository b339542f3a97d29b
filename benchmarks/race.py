"""`python -m benchmarks race`: methods at equal forward passes, each at the best of its learning rates.

Rates are found by successive halving at equal cost: all of them a ninth of the passes, the better half a third, on one seed.
The best then takes all passes on every seed. A run is a folder that `mezo train` or `mezo baseline finetune` wrote in a
process of its own, so peaks of memory are its own, and a race that was stopped goes on where it was.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.options import Json, Many, Markdown, known, progress, show
from benchmarks.processes import environment
from benchmarks.race_entries import BACKWARD, METHODS, RACES, Method, Race
from benchmarks.race_figure import draw
from benchmarks.report import Column, Report, spread
from benchmarks.timing import Note
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.auto_rate import EVERY, FIRST
from mezo.runs.event_log import read as read_events
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.summary import read_summary

REFERENCE = "two-point-linear"
EVALUATIONS = 10  # of a run, beside the one before it


@dataclass(frozen=True)
class Setup:
    """Of all races of one command."""

    data: Path  # a folder for each task
    models: dict[str, str]  # by the names in RACES
    output: Path
    scale: float  # of the passes of a race
    examples: int  # of an evaluation
    threads: int | None


@dataclass(frozen=True)
class Curve:
    """One run, against what it cost. Passes are of one batch, forward; a backward pass counts as two."""

    passes: list[float]
    losses: list[float]
    accuracies: list[float]
    seconds: list[float]  # of the steps, without evaluations
    peak_memory_bytes: int

    @property
    def end(self) -> float:
        """The last validation loss; infinite where the run broke off."""
        return self.losses[-1] if self.losses and self.losses[-1] == self.losses[-1] else float("inf")

    def passes_to(self, loss: float) -> float | None:
        """When the validation loss was at most `loss` for the first time."""
        return next((p for p, found in zip(self.passes, self.losses, strict=True) if found <= loss), None)


def command(
    data: Annotated[Path, typer.Option(help="Folder with one folder of JSON Lines for each task.")],
    output: Annotated[Path, typer.Option(help="Folder for the runs; a stopped race goes on there.")],
    race: Annotated[Many, typer.Option(help=f"Of: {', '.join(RACES)}. Default: all.")] = None,
    method: Annotated[
        Many, typer.Option(help=f"Of: {', '.join((*METHODS, *BACKWARD))}. Default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, at its best rate.")] = 3,
    scale: Annotated[float, typer.Option(min=0.001, help="Passes, as a part of the race's own.")] = 1.0,
    examples: Annotated[int, typer.Option(min=2, help="Validation examples.")] = 500,
    model: Annotated[str, typer.Option(help="The causal model.")] = "smollm2-135m",
    masked_model: Annotated[str, typer.Option(help="Folder of the masked model.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Of each run. None: torch's choice.")] = None,
    figure: Annotated[Path | None, typer.Option(help="SVG of the curves.")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Validation loss against forward passes, seconds and memory: methods of this package, and backpropagation."""
    races = known(race or RACES, RACES, "race")
    methods = known(method or (*METHODS, *BACKWARD), (*METHODS, *BACKWARD), "method")
    setup = Setup(data, {"causal": model, "masked": masked_model}, output, scale, examples, threads)
    rows, curves = [], {}
    for name in races:
        curves[name] = run(RACES[name], methods, seeds, setup, progress)
        rows += summary(name, curves[name])
    if figure is not None:
        draw(
            figure,
            {name: {m: list(c.values()) for m, (_, c) in found.items()} for name, found in curves.items()},
        )
    options = {**asdict(setup), "races": list(races), "methods": list(methods), "seeds": seeds}
    show(Report("race", _plain(options), rows, _COLUMNS, threads or 0), as_json, markdown)


def run(
    race: Race, methods: Sequence[str], seeds: int, setup: Setup, note: Note = lambda text: None
) -> dict[str, tuple[float | None, dict[int, Curve]]]:
    """For each method its best rate (None: it has none to choose), and a curve for each seed."""
    found: dict[str, tuple[float | None, dict[int, Curve]]] = {}
    for name in methods:
        method = {**METHODS, **BACKWARD}[name]
        if not method.fits(race):
            continue
        rate = best_rate(race, name, method, setup, note)
        curves = {}
        for seed in range(seeds):
            note(f"{race.name}, {name}, rate {rate}, seed {seed}")
            curves[seed] = entry(race, name, method, rate, seed, 1.0, setup)
        found[name] = rate, curves
    return found


def best_rate(race: Race, name: str, method: Method, setup: Setup, note: Note) -> float | None:
    """By successive halving at equal cost; the smallest where all diverge."""
    rates = list(method.rates_of(race))
    for share in (1 / 9, 1 / 3):
        if len(rates) < 2:
            break
        ends = {}
        for rate in rates:
            ends[rate] = entry(race, name, method, rate, 0, share, setup).end
            note(f"{race.name}, {name}, rate {rate:g}: {ends[rate]:.4g} after {share:.2g} of the passes")
        rates = sorted(rates, key=lambda rate: (ends[rate], rate))[: (len(rates) + 1) // 2]
    return rates[0] if rates else None


def entry(
    race: Race, name: str, method: Method, rate: float | None, seed: int, share: float, setup: Setup
) -> Curve:
    """One run, made unless it is there already."""
    folder = setup.output / race.name / name / f"{'auto' if rate is None else f'{rate:g}'}-{seed}-{share:.2g}"
    steps = steps_of(method, race, share * setup.scale)
    run = RunFolder(folder)
    if read_summary(folder) is None or not run.metrics.is_file():
        settings = {**race.settings, **method.settings_of(race), "num_steps": steps, "seed": seed}
        settings |= {
            "model": setup.models[race.model],
            "data": str(setup.data / race.task),
            "eval_every": max(1, steps // EVALUATIONS)
            if share == 1
            else steps,  # a rate is judged by its end
            "eval_examples": setup.examples,
            **({} if rate is None else {"learning_rate": rate}),
        }
        config = MeZOConfig.build(**settings)
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_suffix(".yaml")
        file.write_text(config.to_yaml(), encoding="utf-8")
        arguments = ["baseline", "finetune"] if method.backward else ["train"]
        given = [*arguments, "--config", str(file), "--output", str(folder), "--overwrite"]
        if method.backward:
            given += ["--learning-rate", str(rate)]
        around = (
            environment()
            if setup.threads is None
            else {**environment(), "OMP_NUM_THREADS": str(setup.threads)}
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "mezo", *given],
            env=around,
            capture_output=True,
            text=True,
            check=False,
        )
        # a run that exploded or met a loss that is not finite has saved what it did, and lost
        if done.returncode and not run.metrics.is_file():
            raise MezoError(f"{race.name}, {name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return curve_of(folder, method, race)


def steps_of(method: Method, race: Race, share: float) -> int:
    """As many steps as the passes suffice for, start and measurements of the rate included."""
    left, steps = share * race.passes - method.start_passes(race), 0
    while (left := left - method.passes_of(steps, FIRST, EVERY)) >= 0:
        steps += 1
    return max(1, steps)


def curve_of(folder: Path, method: Method, race: Race) -> Curve:
    """Read from what the run left."""
    metrics, end = read_metrics(RunFolder(folder).metrics), read_summary(folder)
    begun = next((e["start"] for e in read_events(RunFolder(folder).events) if "start" in e), None)
    taken = [begun["rows_scored"] / race.batch_size if begun else method.start_passes(race)]
    seconds = [0.0]
    for step in metrics.steps:
        taken.append(taken[-1] + method.passes_of(step.step, FIRST, EVERY))
        seconds.append(seconds[-1] + step.seconds)
    evals = [e for e in metrics.evals if e.step < len(taken)]
    return Curve(
        [taken[e.step] for e in evals],
        [e.loss for e in evals],
        [e.accuracy or 0.0 for e in evals],
        [seconds[e.step] for e in evals],
        end.peak_memory_bytes if end is not None else 0,
    )


def summary(race: str, found: dict[str, tuple[float | None, dict[int, Curve]]]) -> list[dict[str, Any]]:
    """A row for each method. `share`: passes to the loss that the reference ends at, over the reference's passes."""
    aim = median(c.end for c in found[REFERENCE][1].values()) if REFERENCE in found else None
    whole = median(c.passes[-1] for c in found[REFERENCE][1].values()) if REFERENCE in found else None
    rows = []
    for name, (rate, curves) in found.items():
        reached = [c.passes_to(aim) for c in curves.values()] if aim is not None else []
        shares = [float("inf") if p is None else p / (whole or 1) for p in reached]
        rows.append(
            {
                "race": race,
                "method": name,
                "rate": rate,
                "runs": len(curves),
                "loss": _of([c.end for c in curves.values()]),
                "accuracy": _of([100 * c.accuracies[-1] for c in curves.values()]),
                "share": _of(shares) if shares else None,
                "seconds": _of([c.seconds[-1] for c in curves.values()]),
                "peak_gb": round(median(c.peak_memory_bytes for c in curves.values()) / 1e9, 2),
            }
        )
    return rows


def _of(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(options, default=str))


_COLUMNS = (
    Column("race", lambda row: row["race"]),
    Column("method", lambda row: row["method"]),
    Column("rate", lambda row: "auto" if row["rate"] is None else f"{row['rate']:g}"),
    Column("validation loss", lambda row: spread(row["loss"], digits=3)),
    Column("accuracy, %", lambda row: spread(row["accuracy"], digits=1)),
    Column("passes to the reference's end", lambda row: spread(row["share"])),
    Column("seconds", lambda row: spread(row["seconds"], digits=0)),
    Column("peak, GB", lambda row: f"{row['peak_gb']:.2f}"),
)
