"""`mezo tune`."""

import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mezo.cli.options import SETTINGS, with_config
from mezo.cli.progress import PlainObserver
from mezo.config import MeZOConfig
from mezo.errors import MezoError

if TYPE_CHECKING:
    from rich.table import Table

    from mezo.search import SearchResult, Trial

EPILOG = r"""
[bold]Examples[/bold]

  mezo tune --task sst2 --data ./sst2 --tuning lora --batch-size 16 \
    --output runs/search

  mezo tune --config run.yaml --minutes 30 --output runs/search

  mezo tune --config run.yaml --learning-rates 1e-5,3e-5 \
    --epsilons 1e-3 --trial-steps 100 --output runs/search

  mezo train --config runs/search/best.yaml --output runs/tuned

How to choose by hand: docs/choosing.md
"""
_FOUND = {"learning_rate", "epsilon", "eval_every"}  # by the search, or of no use to it
_FIELDS = tuple(name for name in SETTINGS if name not in _FOUND)


@with_config(_FIELDS)
def tune(
    config: MeZOConfig,
    output: Path = typer.Option(
        Path("runs/search"), "--output", "-o", help="Folder of the search; a stopped search continues."
    ),
    learning_rates: str | None = typer.Option(
        None, "--learning-rates", help="Values to try, by comma; default: six, by the tuning mode."
    ),
    epsilons: str | None = typer.Option(
        None, "--epsilons", help="Values to try with each learning rate, by comma; default: two."
    ),
    trial_steps: int | None = typer.Option(
        None, "--trial-steps", min=1, help="Steps of the longest trials. [dim]\\[200][/dim]"
    ),
    minutes: float | None = typer.Option(
        None, "--minutes", help="In place of --trial-steps: the time of the whole search."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Find a learning rate and an epsilon on your own data, by short runs.

    Successive halving: all settings for a few steps, the better half (by validation loss) for twice as
    many, and so on. --steps is the length of the final run: best.yaml keeps it, and trials follow its
    schedule. Ctrl-C loses only the current trial.
    """
    from mezo.search import tune as search
    from mezo.util.json_text import to_json

    found = search(
        config,
        output=output,
        learning_rates=_numbers(learning_rates, "--learning-rates"),
        epsilons=_numbers(epsilons, "--epsilons"),
        steps=trial_steps,
        minutes=minutes,
        observer=PlainObserver(sys.stderr),  # with --json, stdout is the object and nothing else
    )
    if as_json:
        print(
            to_json(
                {
                    **found.best._asdict(),
                    "config": str(found.path),
                    "rungs": found.plan.rungs,
                    "advice": found.advice,
                    "trials": [asdict(trial) for trial in found.trials],
                }
            )
        )
        return
    _report(found)


def _numbers(text: str | None, flag: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise MezoError(f"{flag}: expected numbers with commas between them, found {text!r}") from None


def _report(found: "SearchResult") -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(_table(found))
    print(f"chosen    {found.best}")
    if any(trial.too_large for trial in found.trials):
        print("!         steps too large for their slopes, whatever the loss says: ranked behind the others")
    if found.advice:
        print(f"note      {found.advice}")
    print(f"config    {found.path}")
    print(f"next      mezo train --config {shlex.quote(str(found.path))} --output RUN")


def _table(found: "SearchResult") -> "Table":
    """A line for each setting, the best first: its validation loss after each rung that it reached."""
    from rich.table import Table

    last = {trial.setting: trial for trial in found.trials}
    loss = {(trial.setting, trial.rung): trial for trial in found.trials}
    table = Table(
        "", "learning rate", "epsilon", "start", *(f"{steps} steps" for steps in found.plan.rungs), "score"
    )
    for setting in found.ranking:
        cells = []
        for rung in range(len(found.plan.rungs)):
            trial = loss.get((setting, rung))
            cells.append("" if trial is None else _came(trial))
        score, start = last[setting].score, last[setting].start
        table.add_row(
            ">" if setting == found.best else "",
            f"{setting.learning_rate:g}",
            f"{setting.epsilon:g}",
            f"{start:.4f}" if math.isfinite(start) else "-",
            *cells,
            "" if score is None else f"{100 * score:.1f} %",
        )
    return table


def _came(trial: "Trial") -> str:
    return "diverged" if trial.diverged else f"{trial.loss:.4f}{' !' if trial.too_large else ''}"
