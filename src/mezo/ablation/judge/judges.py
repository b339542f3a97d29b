"""The judges of a plan by name. A new one is a file here and a line in JUDGES."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mezo.ablation.judge.language_model import LanguageModelJudge
from mezo.ablation.judge.rules import likeness
from mezo.ablation.judge.score import Likeness


@dataclass(frozen=True, slots=True)
class Judge:
    """make: the judge, from the model that answers (None where it asks none), the votes and the seed."""

    make: Callable[[Any, int, int], Likeness]
    asks_a_model: bool = False


JUDGES: dict[str, Judge] = {
    "rules": Judge(lambda model, votes, seed: likeness),
    "lm": Judge(LanguageModelJudge, asks_a_model=True),
}
