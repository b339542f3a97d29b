"""`mezo push`: a run's weights on the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from mezo.cli.output import say

EPILOG = """
[bold]Examples[/bold]

  mezo push runs/lora me/my-adapter --dry-run

  mezo push runs/lora me/my-adapter --private
"""


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    name: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Of the repository; it is made if need be.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make it a private repository.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and the card's metadata; upload nothing.")
    ] = False,
) -> None:
    """Upload a run's adapter or model, with its card, to the Hugging Face hub.

    The token is that of `hf auth login`, or the variable HF_TOKEN.
    """
    from mezo.runs.outputs.push import described
    from mezo.runs.outputs.push import push as pushed

    upload = pushed(run, name, private=private, dry_run=dry_run)
    for file, size in upload.files.items():
        say(f"{size:>14,}  {file}")
    say(f"{sum(upload.files.values()):>14,}  bytes in {len(upload.files)} files of {upload.folder}")
    say(f"\n{described(upload.metadata)}\n")
    say(f"nothing was uploaded to {name} (--dry-run)" if dry_run else f"uploaded  {upload.address}")
