"""Options that several measurements share, their checks, and how a report is printed."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from benchmarks.report import Report
from mezo.util.registry import look_up

DTYPE_NAMES = ("float32", "bfloat16", "float16")
TUNINGS = ("full", "lora")

Model = Annotated[str, typer.Option("--model", help="A folder, smollm2-135m, or opt-125m-shape.")]
Data = Annotated[str | None, typer.Option(help="Folder of JSON Lines; none: see docs/performance.md.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch. None: its own choice.")]
Seed = Annotated[int, typer.Option(min=0, help="Of batches and noise.")]
Size = Annotated[int, typer.Option("--batch-size", min=1, help="Examples of a batch.")]
OwnSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Examples of a batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as a page has it.")]
Many = list[str] | None


def known(names: Iterable[str], choices: Iterable[str], what: str) -> Sequence[str]:
    """Check the names before anything is measured. Raises MezoError for one that is not a choice."""
    table = {choice: choice for choice in choices}
    return tuple(look_up(table, name, what) for name in names)


def progress(text: str) -> None:
    """Print what is being measured, on stderr."""
    print(f"mezo: {text}", file=sys.stderr, flush=True)


def show(report: Report, as_json: bool, markdown: bool) -> None:
    if as_json:
        print(json.dumps(report.as_dict()))
    elif markdown:
        print(report.markdown())
    else:
        report.print()
