"""`python -m benchmarks`, from the root of the repository: every measurement by its name.

A measurement's options are those of `command` in its module. A script has a `main` that reads sys.argv itself.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

PROGRAM = "python -m benchmarks"
MEASUREMENTS = (
    "step",
    "noise",
    "memory",
    "modes",
    "prefix",
    "engine",
    "converge",
    "race",
    "scale",
    "quantised",
    "seven-billion",
    "population",
)
SCRIPTS = {
    "engines-agree": "Whether engines walk alike: the same run on each, and how far results are apart.",
    "epsilon": "How well a projected gradient is measured, by epsilon and by the type of the weights.",
    "estimators": "Estimators at equal forward passes, each at the best of a grid of learning rates.",
    "gpu": "What a GPU makes of this package, in minutes, most telling first; --dry runs its parts on the CPU.",
    "label-words": "How far prompts and label words carry a model before any tuning.",
    "learns-to-stop": "Whether a chat model learns to stop: answers that end by themselves, before and after.",
    "replay": "What a step of a replay costs: one at a time, many in a pass, and the bare noise.",
    "rounding": "What each rounding of a 16-bit update keeps along z, and what noise it adds.",
    "scaling": "How much of two processes' time a shared step uses.",
    "soak": "Deaths at random moments of runs; each run resumed must equal an undisturbed one.",
}

_EPILOG = r"""
[bold]Examples[/bold]

  python -m benchmarks step --data ./sst2 --json

  python -m benchmarks step --model smollm2-135m --dtype bfloat16 --tuning lora --threads 2

  python -m benchmarks prefix --data ./tasks --workload icl --workload copa

  python -m benchmarks engine --data ./sst2 --without-cache --json

  python -m benchmarks converge --data ./sst2 --loss 0.65 --max-steps 400

What is measured and against what: docs/performance.md, benchmarks/README.md
"""


def commands() -> "typer.Typer":
    """All measurements and scripts as one app; imports the measurements."""
    import typer

    from mezo.cli.numbers import bound

    app = typer.Typer(
        help="Measurements on this machine: ratios within one run. Every list may be given several times.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        epilog=_EPILOG,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name in MEASUREMENTS:
        app.command(name)(importlib.import_module(f"benchmarks.{name.replace('-', '_')}").command)
    for name, text in SCRIPTS.items():
        app.command(name, help=text)(lambda: None)  # for --help; `main` runs scripts without this app
    bound(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one measurement or script; the exit status, as of the command `mezo`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in SCRIPTS:
        sys.argv = [f"{PROGRAM} {given[0]}", *given[1:]]
        script = importlib.import_module(f"benchmarks.{given[0].replace('-', '_')}")
        return script.main() or 0
    from mezo.cli import main as run

    # the measurements import transformers, so only after `run` has set the variables that transformers reads
    return run(given, lambda *a, **k: commands()(*a, **k), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
