"""`mezo plot`."""

from pathlib import Path

import typer

from mezo.errors import MezoError

EPILOG = """
[bold]Example[/bold]

  mezo plot runs/first

  mezo plot runs/float32 runs/bfloat16 --output comparison
"""


def plot(
    runs: list[Path] = typer.Argument(..., metavar="RUN...", help="Folders of runs, finished or not."),
    output: Path = typer.Option(
        Path("comparison"), "--output", "-o", help="With several runs: the files' name, without ending."
    ),
) -> None:
    """Draw loss, accuracy, projected gradients and zero gradients of a run, as PNG and SVG; or loss and
    accuracy on the validation split of several runs together."""
    from mezo.runs.folder import RunFolder
    from mezo.runs.plots import write_comparison, write_plots

    opened = [RunFolder.open(run) for run in runs]
    if len(runs) > 1:
        written = write_comparison(dict(zip(_names(runs), opened, strict=True)), output)
        if not written:
            raise MezoError("none of these runs was evaluated yet, so there is nothing to compare")
    else:
        written = write_plots(opened[0])
        if not written:
            raise MezoError(f"{runs[0]}: no step of this run is finished yet, so there is nothing to plot")
    for path in written:
        print(path)


def _names(runs: list[Path]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
