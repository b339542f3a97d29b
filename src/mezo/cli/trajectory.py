"""`mezo trajectory`: show, verify, cut, merge, diff, publish."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mezo.cli.options import PLUGIN
from mezo.util.parsing import one_line
from mezo.util.plugins import allowing

app = typer.Typer(
    help="Show, check, cut, merge, compare or publish a run's trajectory.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_RUN = typer.Argument(..., metavar="RUN", help="Folder of a run, or its trajectory file.")
_FILE = typer.Option(..., "--output", "-o", help="The file to write; it must not exist.")


@app.command()
def show(run: Path = _RUN, as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Show a trajectory: base model, settings, steps, sizes, projected gradients."""
    from mezo.resume.trajectory_tools import facts

    found = facts(run)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = {**found, **{f"gradient {k}": v for k, v in found.pop("gradients").items()}}
    rows.pop("gradients", None)
    for name, value in rows.items():
        if value is not None:
            print(f"{name.replace('_', ' '):24}{_text(value)}")


@app.command()
def verify(
    run: Path = _RUN,
    weights: bool = typer.Option(False, "--weights", help="Also replay it and compare the weights."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="With --weights: the base model; default: the run's."
    ),
    trust_remote_code: bool = typer.Option(
        False,
        "--trust-remote-code",
        help="With --weights: run the base model's own Python code, once its files are known to be the run's.",
    ),
    plugin: Annotated[list[str], PLUGIN] = [],  # noqa: B006 - as typer has it
) -> None:
    """Check a run's checksums, settings and metrics against each other, and with --weights its weights."""
    from mezo.cli.progress import observer_for
    from mezo.resume.verify import verify as check

    with observer_for(sys.stdout) as observer, allowing(plugin):
        done = check(
            run, weights=weights, model=model, observer=observer, trust_remote_code=trust_remote_code
        )
        for line in done:
            print(line)


@app.command()
def cut(
    run: Path = _RUN,
    steps: int = typer.Option(..., "--steps", min=0, help="How many steps to keep, from the first."),
    output: Path = _FILE,
) -> None:
    """Write the first steps of a run as a trajectory."""
    from mezo.resume import trajectory_tools

    print(f"trajectory  {trajectory_tools.cut(run, steps, output)}")


@app.command()
def merge(
    first: Path = typer.Argument(..., metavar="RUN", help="Folder of a run, or its trajectory file."),
    second: Path = typer.Argument(..., metavar="RUN2", help="The same run's, or its fork's."),
    output: Path = _FILE,
) -> None:
    """Merge two trajectories of the same run, or of a run and its fork, if they agree."""
    from mezo.resume import trajectory_tools

    print(f"trajectory  {trajectory_tools.merge(first, second, output)}")


@app.command()
def diff(
    first: Path = typer.Argument(..., metavar="RUN", help="Folder of a run, or its trajectory file."),
    second: Path = typer.Argument(..., metavar="RUN2", help="Another run."),
) -> None:
    """Show settings that differ between two runs, and the first step that differs; status 1 if any."""
    from mezo.resume.trajectory_tools import difference

    found = difference(first, second)
    for row in found.header:
        print(f"{row.name:24}{_text(row.first)}  |  {_text(row.second)}")
    a, b = found.steps
    if found.first_step is None:
        print(f"records                 the same, {a} steps")
    else:
        print(f"records                 differ from step {found.first_step} on ({a} steps | {b} steps)")
    if not found.none:
        raise typer.Exit(1)


@app.command()
def publish(
    run: Path = _RUN,
    output: Path = _FILE,
    base: str | None = typer.Option(None, "--base", help="The base model's hub id, for others to load."),
) -> None:
    """Write a fine-tune as one small file: the base model's id and the trajectory."""
    from mezo.resume import publishing

    written = publishing.publish(run, output, base=base)
    print(f"published   {written} ({written.stat().st_size:,} bytes)")
    print(f"use         mezo replay {written} --output FOLDER")


def _text(value: Any) -> str:
    """On one line: names in a file may hold line ends and terminal codes."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return one_line(text)[:200]
