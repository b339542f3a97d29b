"""`mezo tasks`."""

import typer


def register(app: typer.Typer) -> None:
    app.command("tasks")(tasks)


def tasks() -> None:
    """List the tasks: what each row of data must hold, and what there is to choose from."""
    from mezo.tasks import TASKS

    for name, task in TASKS.items():
        words = " | ".join(word.strip() for word in task.label_words)
        choice = words or (
            "each row's own candidates" if task.has_candidates else "free text, measured by loss"
        )
        print(f"{name}\n  fields   {', '.join(task.fields)}\n  answers  {choice}")
