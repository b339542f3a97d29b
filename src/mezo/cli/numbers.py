"""What holds for every command: numbers are finite and bounded, and a stop has its exit status."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import typer

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.interrupts import TERMINATED, Terminated

MOST, MOST_SEED = 10**10, 2**64 - 1  # a seed is all of 64 bits


def bound(app: typer.Typer) -> None:
    """Put bounds on the numbers of all commands of an app; settings of a run have their own."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _bounded(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            bound(group.typer_instance)


def _bounded(command: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(command).parameters
    # settings of a run come with --config, and have bounds of their own
    own = MeZOConfig.model_fields if "config_file" in parameters else ()

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        for name, value in given.items():
            if name not in own:
                for number in value if isinstance(value, list | tuple) else (value,):
                    _check(name, number, parameters[name])
        try:
            return command(**given)
        except KeyboardInterrupt as error:  # typer would make 130 of it, without a word, whatever it is
            terminated = isinstance(error, Terminated)
            print(f"mezo: {'terminated' if terminated else 'stopped'}", file=sys.stderr)
            raise typer.Exit(TERMINATED if terminated else 130) from None

    return run


def _check(name: str, value: Any, parameter: inspect.Parameter) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    most = MOST_SEED if "seed" in name else MOST
    if not -most <= value <= most:  # NaN is not in between either
        flags = getattr(parameter.default, "param_decls", None) or ()
        flag = next((text for text in flags if text.startswith("--")), f"--{name.replace('_', '-')}")
        raise MezoError(f"{flag}: expected a finite number of at most {most:,}, found {value!s:.40}")
