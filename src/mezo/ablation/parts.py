"""The table of parts: what of a method can be ablated, its everyday names, and the settings behind it."""

import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from mezo.ablation.values import Reader
from mezo.ablation.words import folded

NOTHING = "nothing in prose"  # what parts take that no setting of a plan stands for
STRONG = 3.0  # of a name that means this part and no other


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the method, and how it is spoken of.

    read: what a replacement sets. without: what the part's removal sets where its own words say so
    ("the embedding layer"), asked before `off`. names, hints: regular expressions on folded text (`words.folded`); a name means this part and no
    other, a hint may stand in the name of others too. off: the settings of its removal, or why there
    are none. on: the settings of its addition without a word on how, or why there are none.
    """

    title: str
    fields: tuple[str, ...]
    names: tuple[str, ...]
    read: Reader = field(repr=False)
    hints: tuple[str, ...] = ()
    off: dict[str, Any] | str = "it has no value that stands for its absence"
    on: dict[str, Any] | str = "the plan does not say what to add"
    without: Reader | None = field(default=None, repr=False)
    symbols: str = ""  # a regular expression for its letters in formulas: n, lr
    takes: str = ""  # what a value looks like, for people

    def score(self, text: str) -> float:
        """How strongly folded text names this part: each name as STRONG, each hint as 1."""
        if text in (folded(self.title), *(name.replace("_", " ") for name in self.fields)):
            return 8 * STRONG
        named = sum(STRONG for name in self.names if _find(name, text))
        return named + sum(1.0 for hint in self.hints if _find(hint, text))


def ranked(ablated_part: str, name: str = "") -> list[tuple[float, Part]]:
    """The parts that a study's words may mean, the likeliest first, with their scores.

    What stands before the first bracket or " in ", " of the " weighs twice: that is what is ablated, and
    the rest where it is. The study's name weighs half.
    """
    text = folded(ablated_part)
    head = folded(re.split(r"\s*\(|\s(?:in|within|during|for|used)\s", ablated_part.strip(), maxsplit=1)[0])
    title = re.sub(r"\bablat\w*", "", folded(name)).strip()
    scores = [(p.score(text) + p.score(head) + 0.5 * p.score(title), p) for p in parts()]
    return sorted(((s, p) for s, p in scores if s > 0), key=lambda pair: -pair[0])


def nearest(text: str, count: int = 3) -> tuple[str, ...]:
    """The titles of the parts that come nearest to a text: by their names, else by their letters."""
    by_name = [part.title for _, part in ranked(text)[:count]]
    if by_name:
        return tuple(by_name)
    likeness = {p.title: SequenceMatcher(None, folded(text), folded(p.title)).ratio() for p in parts()}
    return tuple(sorted(likeness, key=lambda title: -likeness[title])[:count])


@cache
def parts() -> tuple[Part, ...]:
    """Every part; of those that a text names equally, the earlier one is meant."""
    from mezo.ablation.parts_budget import BUDGET
    from mezo.ablation.parts_method import METHOD
    from mezo.ablation.parts_model import MODEL
    from mezo.ablation.parts_perturbation import PERTURBATION
    from mezo.ablation.parts_shared import SHARED
    from mezo.ablation.parts_training import TRAINING

    return (*METHOD, *PERTURBATION, *TRAINING, *BUDGET, *MODEL, *SHARED)


def part_of(setting: str) -> Part | None:
    """The part behind a setting of MeZOConfig."""
    return next((p for p in parts() if setting in p.fields), None)


def _find(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b")
