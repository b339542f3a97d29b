"""`mezo plan-eval`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mezo.cli.output import cell
from mezo.errors import MezoError

if TYPE_CHECKING:
    from mezo.ablation.judge.score import Score
    from mezo.ablation.plans.plan import Plan

EPILOG = r"""
[bold]Examples[/bold]

  mezo plan-eval plans/mine.yaml --gold plans/published.md

  mezo plan-eval plans/mine.yaml --gold plans/published.md --judge lm \
    --model NAME --base-url http://localhost:8000/v1

The key of an endpoint is read from the environment: OPENAI_API_KEY
"""


def plan_eval(
    plan: Path = typer.Argument(..., help="The plan to judge: YAML, JSON, JSONL, Markdown or HTML."),
    gold: Path = typer.Option(..., "--gold", "-g", help="The reference plan."),
    judge: str = typer.Option(
        "rules", "--judge", help="rules: the table of parts. lm: a language model, blinded."
    ),
    model: str | None = typer.Option(
        None, "--model", "-m", help="The model that --judge lm asks: an endpoint's, or a local one."
    ),
    base_url: str | None = typer.Option(
        None, "--base-url", help="The OpenAI-compatible endpoint; without it the model runs here."
    ),
    votes: int = typer.Option(
        3, "--votes", min=1, max=99, help="Number of answers that --judge lm asks for."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Shuffles studies and sides for --judge lm."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
) -> None:
    """Score a plan against a reference: precision, recall, F1 and nDCG of its studies.

    Two studies match if they ablate the same part, by an action that the other side allows, with at
    least one replacement in common. Each study matches once.
    """
    from mezo.ablation.formats.files import read_plan
    from mezo.ablation.judge.score import JUDGES, score
    from mezo.ablation.planner.endpoint import model_for
    from mezo.util.registry import look_up

    chosen, asks_a_model = look_up(JUDGES, judge, "judge"), judge != "rules"
    if not asks_a_model and (model or base_url):
        raise MezoError(
            f"--judge {judge} asks no model: leave --model and --base-url out, or choose --judge lm"
        )
    if asks_a_model and model is None:
        raise MezoError(
            f"--judge {judge} needs --model NAME: that of an endpoint with --base-url, or a local one"
        )
    mine, reference = read_plan(plan), read_plan(gold)
    if model is not None:
        print(f"asking {model} {votes} times", file=sys.stderr)
    asked = None if model is None else model_for(model, base_url)
    found = score(mine, reference, chosen(asked, votes, seed))
    if as_json:
        print(json.dumps(_record(found, mine, reference, judge), indent=2))
    else:
        _show(found, mine, reference)


def _record(found: "Score", plan: "Plan", gold: "Plan", judge: str) -> dict[str, Any]:
    pairs = [
        {
            "study": plan.studies[pair.study].name,
            "gold": gold.studies[pair.gold].name,
            "likeness": round(pair.likeness, 4),
        }
        for pair in found.pairs
    ]
    numbers = {name: round(getattr(found, name), 6) for name in ("precision", "recall", "f1", "ndcg")}
    return {"judge": judge, **numbers, "studies": found.studies, "gold": found.gold, "pairs": pairs}


def _show(found: "Score", plan: "Plan", gold: "Plan") -> None:
    """Print the matches. Texts of plans are shown without markup."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("plan", "reference", "likeness"):
        table.add_column(heading, overflow="fold")
    partner = {pair.study: pair for pair in found.pairs}
    for n, study in enumerate(plan.studies):
        pair = partner.get(n)
        other = cell(gold.studies[pair.gold]) if pair else cell("none", "dim")
        table.add_row(cell(study), other, f"{pair.likeness:.2f}" if pair else "")
    for n in sorted(set(range(found.gold)) - {pair.gold for pair in found.pairs}):
        table.add_row(cell("none", "dim"), cell(gold.studies[n]), "")
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    matches = len(found.pairs)
    console.print(
        f"\nprecision {found.precision:.3f} ({matches} of {found.studies})   "
        f"recall {found.recall:.3f} ({matches} of {found.gold})   F1 {found.f1:.3f}   nDCG {found.ndcg:.3f}",
        soft_wrap=True,
    )
