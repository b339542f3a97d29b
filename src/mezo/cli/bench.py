"""`mezo bench`."""

import json

import typer

app = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass  # keeps `memory` a command of its own while it is the only one


@app.command("memory")
def memory(as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """Peak memory of a MeZO step beside that of inference and of backpropagation."""
    from mezo.bench.memory import run

    result = run()
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<40} {value}")
