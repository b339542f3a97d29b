"""`mezo merge`: an adapter and its base as one model."""

from pathlib import Path
from typing import Annotated

import typer

from mezo.cli.generate import to_stderr

EPILOG = """
[bold]Example[/bold]

  mezo merge runs/lora --output merged
"""


def merge(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run with an adapter (LoRA, norms).")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder; default: RUN/merged.")
    ] = None,
) -> None:
    """Put a run's adapter (LoRA, norms) into its base model, and save the whole model.

    The weights have the run's dtype. The folder has tokenizer, generation config and card, and loads without peft.
    """
    from mezo.runs.outputs.merge import merge as merged

    print(f"model     {merged(run, output=output, note=to_stderr)}")
