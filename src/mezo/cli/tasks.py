"""`mezo tasks`: what there is, and what a task's prompts look like."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mezo.util import plugins

if TYPE_CHECKING:
    from mezo.tasks import Row, Task

_EPILOG = r"""
[bold]Examples[/bold]

  mezo tasks show rte

  mezo tasks show rte --data ./rte --rows 5 --masked

  mezo tasks show my_task.yaml --data ./mine --model ./my-model
"""


app = typer.Typer(rich_markup_mode="rich")


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def tasks(context: typer.Context) -> None:
    """List the tasks with the fields of a row, the answers to choose from, and the metrics."""
    if context.invoked_subcommand is not None:
        return
    from mezo.errors import MezoError
    from mezo.tasks import HubDataset, Task, task_for

    for name in plugins.choices("task"):
        try:
            task = task_for(name)
        except (
            MezoError
        ) as error:  # of somebody else's package, which does not keep the others from being listed
            print(f"{name}\n  broken   {error}")
            continue
        words = " | ".join(word.strip() for word in task.label_words)
        choice = words or ("each row's own candidates" if task.has_candidates else "free text")
        forms = "causal" if type(task).masked is Task.masked else "causal, masked"
        print(f"{name}\n  fields   {', '.join(task.fields)}\n  answers  {choice}")
        print(f"  judged   {', '.join(task.metrics) or 'loss'}\n  models   {forms}")
        if isinstance(task.home, HubDataset):
            print(f"  data     {' '.join(filter(None, (task.home.id, task.home.config)))}")
    print(f"  (metrics that a task of your own may name: {', '.join(plugins.choices('metrics'))})")


@app.command("show", epilog=_EPILOG)
def show(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task's name, a YAML file, or module:Class.")],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Folder or file of rows. Without it, made-up rows are shown."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data.")] = "train",
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Rows to show.")] = 3,
    masked: Annotated[
        bool, typer.Option("--masked", help="The form for masked models instead of causal ones.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Show what this model's tokenizer makes of it, cut to --max-length."
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens an example may have, with --model.")] = 512,
    label_words: Annotated[str | None, typer.Option(help="Words for the classes, by comma.")] = None,
    template: Annotated[str | None, typer.Option(help="A prompt of your own, as in mezo train.")] = None,
) -> None:
    """Print filled-in prompts of a task, with the candidates and a star at the right answer."""
    from mezo.cli.rows import show_texts, show_tokens
    from mezo.tasks import task_for

    plugins.trust("task", name)
    words = [word.strip() for word in label_words.split(",")] if label_words else None
    task = task_for(name, words, template and template.replace("\\n", "\n"))
    task, chosen = _rows(task, data, split, rows)
    if model is not None:
        show_tokens(task, chosen, model, max_length, None)
    else:
        show_texts(task, chosen, masked=masked)


def _rows(task: "Task", data: str | None, split: str, count: int) -> "tuple[Task, Sequence[Row]]":
    from mezo.data import MeZODataset
    from mezo.errors import MezoError
    from mezo.tasks import Row

    if data is not None:
        found = MeZODataset(data, task=task, split=split, max_examples=count)
        return found.task, found.rows
    if not task.samples:
        raise MezoError(f"task {task.name!r} has no made-up rows to show: give rows of your own with --data")
    rows = [Row(fields, "made up", number) for number, fields in enumerate(task.samples)]
    return task.fitted(rows), rows[:count]
