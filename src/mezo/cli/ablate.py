"""`mezo ablate`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from mezo.cli.options import SETTINGS, with_config
from mezo.cli.output import cell, say
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.runs.pace import duration

if TYPE_CHECKING:
    from rich.table import Table

    from mezo.ablation.plans.plan import Plan
    from mezo.ablation.run.prepare import PreparedStudy
    from mezo.ablation.run.runner import Finished

EPILOG = r"""
[bold]Examples[/bold]

What a plan would run (--estimate adds the expected time):

  mezo ablate plan.md --model ./my-model --task sst2 --data ./sst2 \
    --steps 200 --seeds 3 --dry-run

The study, its results and its reports:

  mezo ablate plan.md --model ./my-model --task sst2 --data ./sst2 \
    --steps 200 --seeds 3 --learning-rate 1e-4 --output runs/study

The same command continues a study that was stopped or killed.

Let a model propose settings for words that are not understood, into plan.proposed.yaml:

  mezo ablate plan.md --binder-model NAME --base-url http://localhost:8000/v1
"""


@with_config(SETTINGS)
def ablate(
    config: MeZOConfig,
    plan: Path = typer.Argument(..., help="YAML, JSON, JSONL, Markdown or HTML: see docs/ablation.md."),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Folder of the study; a study in it continues. Default: runs/PLAN."
    ),
    seeds: int = typer.Option(
        3, "--seeds", min=1, metavar="K", help="Runs of each variant: seeds --seed, --seed + 1, ..."
    ),
    minutes: float | None = typer.Option(
        None,
        "--minutes",
        metavar="M",
        help="In place of --steps: the time of the whole study, equal for all runs.",
    ),
    equal: str = typer.Option(
        "steps", "--equal", help="What is equal for all runs: steps or (forward) passes."
    ),
    jobs: int | None = typer.Option(
        None,
        "--jobs",
        "-j",
        min=1,
        show_default=False,
        help="Runs at the same time. [dim]\\[one, or one a GPU][/dim]",
    ),
    threshold: str | None = typer.Option(
        None,
        "--threshold",
        metavar="[METRIC=]VALUE",
        help="The value up to which steps and seconds count. Default: the baseline's mean at its end.",
    ),
    strict: bool = typer.Option(False, "--strict", help="Stop if a part of the plan cannot be run."),
    estimate: bool | None = typer.Option(
        None,
        "--estimate/--no-timing",
        show_default=False,
        help="Estimate the time, from finished runs or a few steps of the baseline. --minutes and --equal passes time"
        " every variant.",
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Show what would be run, within seconds; train and write nothing."
    ),
    binder_model: str | None = typer.Option(
        None,
        "--binder-model",
        metavar="NAME",
        help="Have a model propose settings for what is not bound. They are written to PLAN.proposed.yaml; nothing is run.",
    ),
    base_url: str | None = typer.Option(
        None,
        "--base-url",
        help="The OpenAI-compatible endpoint of --binder-model; without it the model runs here.",
    ),
) -> None:
    """Run a plan of ablation studies: baseline and variants, over seeds, to a report with intervals.

    All other options describe the baseline, as in `mezo train`; a variant changes what the plan says. What
    cannot be run is listed with its reason first. Runs are evaluated at every tenth of their steps,
    unless --eval-every says otherwise, all on the same examples.

    Writes results.jsonl, report.html, report.md and a folder for each run. Ctrl-C or a kill at any
    moment loses only the unfinished runs.
    """
    from mezo.ablation.formats.files import read_plan
    from mezo.ablation.report.report import check_libraries, write_report
    from mezo.ablation.run.prepare import Options, prepare
    from mezo.ablation.run.runner import run_study

    options = Options(seeds, minutes, _equal(equal), jobs, strict, estimate, _threshold(threshold), dry_run)
    if minutes is not None and minutes <= 0:
        raise MezoError(f"--minutes: expected a time above 0, found {minutes:g}")
    folder = output or Path("runs") / (plan.stem or "study")
    if not dry_run:
        check_libraries()
    found = read_plan(plan)
    if base_url is not None and binder_model is None:
        raise MezoError(
            "--base-url is the endpoint of --binder-model: add --binder-model NAME, or leave it out"
        )
    if binder_model is not None and _propose(found, plan, config, binder_model, base_url, dry=dry_run):
        return
    prepared = prepare(found, config, folder, options, _say)
    _show(prepared)
    if dry_run:
        return
    finished = run_study(prepared, ["mezo", *sys.argv[1:]], say=_say)
    _report(finished, folder)
    if finished.stopped:
        raise typer.Exit(130)
    for path in write_report(folder)[:2]:
        print(f"report    {path}")
    if finished.failed:
        raise typer.Exit(1)


def _propose(
    plan: "Plan", path: Path, config: MeZOConfig, model: str, base_url: str | None, *, dry: bool
) -> bool:
    """Show what a model proposes for what is not bound, and write a plan with it; False if everything is bound."""
    from mezo.ablation.binding.bind import bind
    from mezo.ablation.formats.files import write_plan
    from mezo.ablation.planner.endpoint import model_for
    from mezo.ablation.planner.proposals import propose, proposed_plan

    bound, target = bind(plan, config), path.with_name(f"{path.stem}.proposed.yaml")
    if not bound.unbound or bound.disagreements:
        return False  # nothing to ask, or an error that `prepare` raises
    if target.exists() and not dry:
        raise MezoError(f"{target}: already there; check it and run it, or remove it")
    say(f"asking {model} about {len(bound.unbound)} variants", sys.stderr)
    proposals = propose(plan, bound, config, model_for(model, base_url))
    for each in proposals:
        say(f"{'proposed' if each.usable else 'not bound'}  {each}")
    if not any(each.usable for each in proposals):
        print("next      write `set:` into the plan; nothing is run")
        return True
    if dry:
        print("next      the same command without --dry-run writes these proposals; nothing is run")
        return True
    write_plan(proposed_plan(plan, bound, proposals), target)
    say(f"written   {target}")
    say(f"next      check its `set:`, then mezo ablate {target} ...; nothing is run before")
    return True


def _equal(text: str) -> Literal["steps", "passes"]:
    if text not in ("steps", "passes"):
        raise MezoError(f"--equal: expected steps or passes, found {text!r}")
    return text  # pyright: ignore[reportReturnType]


def _threshold(text: str | None) -> tuple[str | None, float] | None:
    if text is None:
        return None
    metric, _, value = text.rpartition("=")
    try:
        if not math.isfinite(number := float(value)):
            raise ValueError
        return metric.strip() or None, number
    except ValueError:
        raise MezoError(
            f"--threshold: expected a value, or a metric and a value such as accuracy=0.7, found {text!r}"
        ) from None


def _say(text: str) -> None:
    say(text, sys.stderr)


def _show(prepared: "PreparedStudy") -> None:
    """The variants, what is not bound, the number of runs, and the estimated time."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(_table(prepared))
    for item in prepared.bound.unbound:
        near = f" (nearest: {', '.join(item.nearest)})" if item.nearest else ""
        say(f"not run   {item.study}: {item.text}: {item.reason}{near}")
    for study, lines in prepared.bound.stubs.items():
        say(f"to fill in {study}:")
        for line in lines.splitlines():
            say(f"  {line}")
    for study, names in prepared.bound.uncomputed.items():
        say(f"no metric {study}: {', '.join(names)}: not computed here")
    left, unique = prepared.left(), {run.key for run in prepared.runs}
    print(f"runs      {len(unique)}, {len(unique) - len(left)} of them done; seeds: {prepared.options.seeds}")
    say(f"budget    {prepared.budget}")
    if (seconds := prepared.estimate()) is not None and left:
        at_once = len(prepared.devices)
        say(
            f"time      about {duration(seconds)} for {len(left)} runs, {at_once} at a time; {prepared.timed_by}"
        )


def _table(prepared: "PreparedStudy") -> "Table":
    from rich.table import Table

    timed = any(prepared.seconds(run) is not None for run in prepared.runs)
    table = Table("study", "variant", "settings", "steps", *(["a run"] if timed else []), "note")
    first = {run.case.name: run for run in reversed(prepared.runs)}
    for case in prepared.cases:
        run = first[case.name]
        seconds = prepared.seconds(run)
        same = case.study is not None and case.key == prepared.cases[0].key
        notes = [case.note, "the baseline's own runs" if same and not case.note else ""]
        if error := prepared.agreed.errors.get(case.key):
            notes.append(f"will fail: {error}")
        table.add_row(
            *map(
                cell,
                (
                    case.study or "",
                    case.label,
                    ", ".join(f"{name}: {value}" for name, value in case.settings.items()),
                    f"{run.config.num_steps:,}",
                    *(["" if seconds is None else duration(seconds)] if timed else []),
                    "; ".join(note for note in notes if note),
                ),
            )
        )
    return table


def _report(finished: "Finished", folder: Path) -> None:
    if finished.threshold is not None:
        t = finished.threshold
        say(f"threshold {t.metric} {t.value:.4f}: {t.source}")
    for name, error in finished.failed:
        say(f"failed    {name}: {error}")
    print(f"made      {finished.made} runs; {finished.left} are left")
    if finished.stopped or finished.failed:
        what = "continues" if finished.stopped else "tries the failed ones again"
        print(f"next      the same command {what}")
    print(f"results   {folder / 'results.jsonl'}")
