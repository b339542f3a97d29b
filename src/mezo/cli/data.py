"""`mezo data show`: what a run would read, and what it would learn of it."""

import sys

import typer

from mezo.cli.options import DATA_SETTINGS, with_config
from mezo.config import MeZOConfig

EPILOG = r"""
[bold]Examples[/bold]

  mezo data show --data tickets.csv

  mezo data show --data chat.jsonl --model ./my-model --turns last

  mezo data show --data rows.parquet --columns prompt=question,completion=reply
"""

app = typer.Typer(
    help="The rows of data, as a run reads them.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command("show", epilog=EPILOG)
@with_config(DATA_SETTINGS)
def show(
    config: MeZOConfig,
    split: str = typer.Option("train", "--split", help="Split of the data."),
    rows: int = typer.Option(3, "--rows", "-n", min=1, help="Rows to show."),
    tokens: bool = typer.Option(
        False,
        "--tokens",
        help="Token by token, those that are learned in brackets; on where --model is given.",
    ),
) -> None:
    """Show how rows of data are read: the task they are of, their prompts and answers, and with --model or --tokens
    every token, with those that are learned in brackets."""
    from mezo.cli.rows import show_texts, show_tokens
    from mezo.data import MeZODataset
    from mezo.data.from_config import task_of

    task, of_all = task_of(config), {"seed": config.seed, "eval_seed": config.eval_seed}
    data = MeZODataset(config.data, task=task, split=split, split_sizes=config.split_sizes, **of_all)
    if data.words:
        print(f"{data.words}; {len(data):,} rows")
    if tokens or "model" in config.model_fields_set:
        show_tokens(data.task, data.rows[:rows], config.model, config.max_length, config.chat_template)
    else:
        show_texts(data.task, data.rows[:rows], masked=False)
    sys.stdout.flush()
