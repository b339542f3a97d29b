"""`mezo export`: a model for llama.cpp."""

from pathlib import Path
from typing import Annotated

import typer

from mezo.cli.generate import to_stderr

EPILOG = """
[bold]Examples[/bold]

  mezo export runs/lora --gguf q8_0

  mezo export runs/first --gguf f16 --output first.gguf
"""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a model.")],
    gguf: Annotated[str, typer.Option("--gguf", help="How weights are stored: f32, f16, bf16 or q8_0.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: RUN/model-TYPE.gguf.")
    ] = None,
    converter: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another convert_hf_to_gguf.py of llama.cpp, for newer models."),
    ] = None,
) -> None:
    """Write a run's model as a GGUF file, which llama.cpp, Ollama and LM Studio load.

    An adapter is merged into its base first. The converter is llama.cpp's own; it is fetched once.
    """
    from mezo.runs.outputs.export import export as exported

    print(f"file      {exported(run, gguf=gguf, output=output, converter=converter, note=to_stderr)}")
