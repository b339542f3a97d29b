"""`mezo plot`."""

from pathlib import Path

import typer

from mezo.errors import MezoError

_EPILOG = """
[bold]Example[/bold]

  mezo plot runs/first
"""


def register(app: typer.Typer) -> None:
    app.command("plot", epilog=_EPILOG)(plot)


def plot(
    run: Path = typer.Argument(..., metavar="RUN", help="Folder of a run; it may be still going on."),
) -> None:
    """Draw loss, accuracy, projected gradients and zero gradients of a run, as PNG and SVG."""
    from mezo.plots import write_plots
    from mezo.run import RunFolder

    written = write_plots(RunFolder.open(run))
    if not written:
        raise MezoError(f"{run}: no step of this run is finished yet, so there is nothing to plot")
    for path in written:
        print(path)
