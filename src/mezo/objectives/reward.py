"""A custom reward: any Python function of an example and of what the model wrote."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from mezo.errors import MezoError, near
from mezo.objectives.base import OutputObjective
from mezo.scoring import Example

Function = Callable[[dict[str, Any], str], Any]  # a number, which is checked


@dataclass(frozen=True, slots=True)
class Reward(OutputObjective):
    """-(mean reward over the batch). Make one with `reward_named` or `reward_of`.

    The function is called with (example, output). example: the fields of the row, and `references`,
    the list of accepted answers, where the task has them. output: the generated text.
    """

    function: Function

    def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        rewards = [self._reward(e, text) for e, text in zip(examples, outputs, strict=True)]
        return -math.fsum(rewards) / len(rewards)

    def _reward(self, example: Example, output: str) -> float:
        row = {**(example.fields or {}), "references": list(example.references)}
        where = f"reward {self.name}, example {_shown(row)}, output {_shown(output)}"
        try:
            value = self.function(dict(row), output)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise MezoError(f"{where}: raised {type(error).__name__}{reason and ': '}{reason}") from error
        if not isinstance(value, Real) or not math.isfinite(value):
            raise MezoError(f"{where}: expected a finite number, found {_shown(value)}")
        return float(value)


def reward_of(function: Function, name: str) -> Reward:
    return Reward(name, needs_candidates=False, metric=name, function=function)


def reward_named(name: str) -> Reward:
    """The function called "module:function", the module found from the working directory on.

    Raises MezoError if the module cannot be imported or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    with _working_directory_first():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise MezoError(
                f"objective {name!r}: cannot import {module_name!r} from {Path.cwd()} or the installed packages: "
                f"{type(error).__name__}: {reason}"
            ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise MezoError(
            f"objective {name!r}: {module_name} has no function {function_name!r}{near(function_name, own)}"
        )
    return reward_of(function, name)


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """An installed command does not look for modules where it is started; a person expects it to."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
