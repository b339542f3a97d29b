"""`mezo plan`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mezo.cli.output import say
from mezo.errors import MezoError
from mezo.util.foreign import check_folder

if TYPE_CHECKING:
    from mezo.ablation.planner.plan_paper import Planned

EPILOG = r"""
[bold]Examples[/bold]

  mezo plan paper.pdf -n 5 --model NAME \
    --base-url http://localhost:8000/v1 --output plans/paper

  mezo plan ./arxiv-source -n 5 --model smollm2-135m --output plans/paper

  mezo ablate plans/paper/plan.yaml --dry-run

The key of an endpoint is read from the environment: OPENAI_API_KEY
"""


def plan(
    paper: Path = typer.Argument(..., help="A .md, .txt, .tex or .pdf file, or a folder of LaTeX."),
    count: int = typer.Option(5, "--number", "-n", min=1, max=50, help="Maximum number of studies."),
    model: str = typer.Option(..., "--model", "-m", help="The endpoint's model, or a local one."),
    base_url: str | None = typer.Option(
        None, "--base-url", help="The OpenAI-compatible endpoint; without it the model runs here."
    ),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Folder of the plan. [dim]\\[plans/PAPER][/dim]"
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing plan."),
    paper_tokens: int | None = typer.Option(
        None,
        "--paper-tokens",
        min=100,
        help="Maximum tokens of the paper's text. [dim]\\[30000, or what fits][/dim]",
    ),
    max_tokens: int | None = typer.Option(
        None,
        "--max-tokens",
        min=1,
        help="Maximum tokens of an answer. [dim]\\[the endpoint's own; 2048 here][/dim]",
    ),
    timeout: float = typer.Option(
        300.0, "--timeout", min=0.01, help="Seconds to wait for an endpoint's answer."
    ),
    retries: int = typer.Option(
        4, "--retries", min=0, help="Retries after rate limits, errors 5xx, lost connections."
    ),
) -> None:
    """Ask a language model for ablation studies of a paper.

    Writes plan.yaml (to edit and run), plan.md (to look at) and reply.txt (the model's answer). After an
    invalid answer the model is asked once more, with the reason.
    """
    from mezo.ablation.planner.endpoint import LocalModel
    from mezo.ablation.planner.papers import read_paper
    from mezo.ablation.planner.plan_paper import (
        PLAN,
        Unusable,
        messages_for,
        plan_paper,
        without_the_paper,
        write_planned,
        write_replies,
    )
    from mezo.util.endpoint import Endpoint

    folder = output or Path("plans") / (paper.resolve().stem or "paper")
    _check(folder, overwrite)
    read = read_paper(paper)
    if base_url is not None:
        asked = Endpoint(model, base_url, timeout, retries, max_tokens)
        messages = messages_for(read, count, paper_tokens or 30_000)
    else:
        asked = LocalModel(model, max_tokens=max_tokens or 2048)
        room = asked.room()
        # the second question repeats the first answer; the template's own marks need some tokens, too
        other = asked.count(without_the_paper(read, count)) + asked.max_tokens + 64
        fits = 30_000 if room is None else max(room - other, 100)
        messages = messages_for(read, count, min(paper_tokens or fits, fits), asked.count)
    say(f"asking {model} about {read.title!r}", sys.stderr)
    try:
        planned = plan_paper(messages, count, asked, title=read.title)
    except Unusable as error:
        kept = write_replies(error.replies, folder)
        raise MezoError(f"{error}; the answers are kept in {kept}") from None
    written = write_planned(planned, folder)
    _report(planned)
    print(f"written   {', '.join(str(path) for path in written)}")
    print(f"next      mezo ablate {folder / PLAN} --dry-run")


def _check(folder: Path, overwrite: bool) -> None:
    """Before a paid answer, not after it."""
    from mezo.ablation.planner.plan_paper import PAGE, PLAN

    check_folder(folder, "plan")
    held = [name for name in (PAGE, PLAN) if (folder / name).exists()]
    if held and not overwrite:
        raise MezoError(f"{folder}: already holds {held[0]}; choose another --output, or add --overwrite")
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        raise MezoError(f"{nearest}: cannot write there; choose another --output")


def _report(planned: "Planned") -> None:
    for note in planned.notes:
        say(f"note      {' '.join(note.split())}")
    for n, study in enumerate(planned.plan.studies, start=1):
        runs = sum(variant.study == study.name for variant in planned.bound.variants)
        say(f"study {n:<3} {study} ({runs} variants can be run)")
    for item in planned.bound.unbound:
        near = f"; nearest: {', '.join(item.nearest)}" if item.nearest else ""
        say(f"not run   {item.study}: {item.text}: {item.reason}{near}")
