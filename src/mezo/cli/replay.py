"""`mezo replay`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mezo.cli.options import PLUGIN
from mezo.cli.progress import observer_for

EPILOG = """
[bold]Example[/bold]

  mezo replay runs/first --output runs/first-again
"""


def replay(
    run: Path = typer.Argument(..., metavar="RUN", help="Folder of a run, or its trajectory file."),
    model: str | None = typer.Option(None, "--model", "-m", help="The base model; default: the run's."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for the weights."),
    trust_remote_code: bool = typer.Option(
        False,
        "--trust-remote-code",
        help="Run the base model's own Python code, once its files are known to be the run's.",
    ),
    plugin: Annotated[list[str], PLUGIN] = [],  # noqa: B006 - as typer has it
) -> None:
    """Rebuild a run's final weights from its base model and its trajectory.

    This needs no data and no forward pass; the weights are those of the run, bit for bit.
    Ctrl-C leaves nothing half-written.
    """
    from mezo import api

    with observer_for(sys.stdout) as observer:
        written = api.replay(
            run,
            model=model,
            output=output,
            observer=observer,
            trust_remote_code=trust_remote_code,
            plugins=plugin,
        )
    print(f"weights   {written}")
