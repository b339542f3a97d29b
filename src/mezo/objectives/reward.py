"""A custom reward: any Python function of an example and of what the model wrote."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.base import OutputObjective
from mezo.scoring import Example

Function = Callable[[dict[str, Any], str], Any]  # a number, which is checked


@dataclass(frozen=True, slots=True)
class Reward(OutputObjective):
    """-(mean reward over the batch). Make one with `reward_of`.

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
    """A function of (example, output) as an objective."""
    return Reward(name, needs_candidates=False, metric=name, function=function)


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
