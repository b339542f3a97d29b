"""`mezo eval`."""

import sys
from pathlib import Path
from typing import Any

import typer

from mezo.cli.options import DATA_SETTINGS, with_config
from mezo.cli.output import cell
from mezo.cli.progress import PlainObserver
from mezo.config import MeZOConfig
from mezo.events import Headline

_OF_EVALUATION = (
    "objective",
    "max_new_tokens",
    "stop",
    "prefill",
    "batch_size",
    "audit",
    "disable_shortcuts",
    "matmul",
)
EPILOG = r"""
[bold]Examples[/bold]

  mezo eval --model smollm2-135m --task demo

  mezo eval --model ./my-model --adapter runs/lora/adapter \
    --task sst2 --data ./sst2 --split test --json

  mezo eval --config runs/first/config.yaml --model runs/first/model
"""


@with_config((*DATA_SETTINGS, *_OF_EVALUATION))
def evaluate(
    config: MeZOConfig,
    adapter: Path | None = typer.Option(
        None, "--adapter", "-a", help="RUN/adapter of a run of LoRA, a prefix or norms."
    ),
    split: str = typer.Option("validation", "--split", help="Split of the data to evaluate on."),
    shots: int = typer.Option(
        0,
        "--shots",
        min=0,
        help="Number of solved training examples before each prompt; those that do not fit are left out.",
    ),
    show: int = typer.Option(
        0, "--show", min=0, help="Show so many examples: prompt, expected, and what was chosen or written."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure a model's loss and its task's metrics, with or without an adapter."""
    from mezo import api
    from mezo.util.json_text import to_json

    # Notes go to stderr: with --json, stdout is the object and nothing else.
    record = api.evaluate(
        config, adapter=adapter, split=split, shots=shots, show=show, observer=PlainObserver(sys.stderr)
    )
    if as_json:
        print(to_json(record))
        return
    print(f"{record['task']} {record['split']}, {record['examples']} examples, {record['seconds']:.1f} s")
    width = max(map(len, (*record["metrics"], "loss")))
    for name, value in record["metrics"].items():
        print(f"{name:{width}}  {Headline(name, value)}")
    print(f"{'loss':{width}}  {record['loss']:.4f}")
    for number, example in enumerate(record.get("shown", ()), start=1):
        _show(number, example)


def _show(number: int, example: dict[str, Any]) -> None:
    """Texts of other people's making: no markup is read in them, and nothing in them acts upon a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(cell(f"\n--- {number}", "dim"))
    console.print(cell(example["prompt"]))
    expected = " | ".join(map(repr, example["expected"]))
    console.print(cell(f"expected  {expected}", "bold"))
    for name in ("chosen", "written"):
        if name in example:
            # quoted, so that the space before a word and the end of a line can be seen
            console.print(cell(f"{name:8}  {example[name]!r}"))
