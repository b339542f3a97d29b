"""The command line: `mezo train`, `eval`, `tune`, `baseline`, `replay`, `plot`, `tasks`.

Nothing here imports torch before a command that needs it runs, so that help is instant.
"""

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer

import mezo
from mezo.cli import (
    ablate,
    baseline,
    chat,
    data,
    evaluate,
    export,
    generate,
    merge,
    plan,
    plan_eval,
    plot,
    push,
    replay,
    tasks,
    train,
    trajectory,
    tune,
)
from mezo.cli.numbers import bound
from mezo.cli.options import SETTINGS, flags_of, paragraphs
from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.parallel.environment import rank_of_environment
from mezo.util.interrupts import TERMINATED, Terminated
from mezo.util.other_names import about_option
from mezo.util.parsing import one_line
from mezo.util.secrets import hidden

_EPILOG = r"""
[bold]Start here[/bold]

  mezo train --task demo --steps 200 --batch-size 16 \
    --learning-rate 1e-5 --output runs/first

Every command has its own help, with examples: mezo train --help
"""

app = typer.Typer(
    help="Fine-tune language models with forward passes only, at the memory of inference (MeZO).",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "train": train.train,
    "eval": evaluate.evaluate,
    "generate": generate.generate,
    "chat": chat.chat,
    "merge": merge.merge,
    "export": export.export,
    "push": push.push,
    "tune": tune.tune,
    "ablate": ablate.ablate,
    "replay": replay.replay,
    "plot": plot.plot,
    "plan": plan.plan,
    "plan-eval": plan_eval.plan_eval,
}
for name, command in COMMANDS.items():
    epilog = sys.modules[command.__module__].EPILOG
    app.command(name, help=paragraphs(command.__doc__ or ""), epilog=epilog)(command)
for name, group in {"tasks": tasks, "data": data, "baseline": baseline, "trajectory": trajectory}.items():
    app.add_typer(group.app, name=name)
bound(app)


# errors of a disk that is full, read-only, failing or somebody else's: no defect of mezo
_OF_DISKS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
}  # fmt: skip

_SHOWN = 300  # characters of a message that repeats what was typed


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mezo {mezo.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def _say(message: Warning | str, *place: object) -> None:
    print(f"mezo: warning: {hidden(one_line(message))}", file=sys.stderr)


@contextlib.contextmanager
def _silent(other: bool) -> Iterator[None]:
    """other: this is one of several processes that would all say the same."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if other else sys.stdout):
        yield


def main(
    arguments: Sequence[str] | None = None, program: Callable[..., Any] = app, name: str = "mezo"
) -> int:
    """Run the command line; the exit status. `program` and `name`: another app that reports errors the same way.

    0: done. 2: a mistake of the person, reported in one line on stderr. 130: stopped by Ctrl-C. 143: by SIGTERM.
    """
    # Said before transformers is imported, which reads them then; what a person has set wins.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    rank = rank_of_environment()
    with warnings.catch_warnings(), _silent(rank > 0):
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # other libraries' talk to their developers
            warnings.filterwarnings("always", category=MezoWarning)
            warnings.showwarning = _say
        try:
            return program(arguments, prog_name=name, standalone_mode=False) or 0
        except MezoError as error:
            if rank and error.of_all_ranks:
                return 2
            message = str(error)
        except Terminated:
            print("mezo: terminated", file=sys.stderr)
            return TERMINATED
        except (KeyboardInterrupt, typer.Abort):
            print("mezo: stopped", file=sys.stderr)
            return 130
        except OSError as error:
            if error.errno not in _OF_DISKS:
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            message = f"{where}cannot be read or written: {error.strerror}"
        except Exception as error:
            # typer has its own copy of click in some versions; both have this method on a usage error.
            if not hasattr(error, "format_message"):
                raise
            message = f"{error.format_message()!s:.{_SHOWN}} (see: {name} --help)"  # pyright: ignore[reportAttributeAccessIssue]
            theirs = getattr(error, "option_name", None)
            if theirs and (here := about_option(theirs, SETTINGS, lambda setting: flags_of(setting)[0])):
                message = f"no option {theirs}: {here} (see: {name} --help)"
            if not error.format_message():  # pyright: ignore[reportAttributeAccessIssue]
                return 2  # no arguments: the help was the answer
    of_rank = f"rank {rank}: " if rank else ""
    print(f"mezo: error: {of_rank}{hidden(one_line(message))}", file=sys.stderr)
    return 2
