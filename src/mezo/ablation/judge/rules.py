"""The judge by rules: two studies are the same ablation if part, action and a replacement agree."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from mezo.ablation.binding.bind import bind_study
from mezo.ablation.binding.case import Case
from mezo.ablation.binding.lexicon import ranked
from mezo.ablation.binding.text import folded, numbers
from mezo.ablation.plans.plan import Plan, Study
from mezo.config import MeZOConfig

ALIKE = 0.6  # similarity of two texts that say the same in other words
_STOP = re.compile("a|an|and|by|for|from|in|instead|is|its?|of|on|or|that|the|this|to|used|using|use|with|vs")
_OTHER_PARTS = 0.85  # the same, where the table has two different parts


def likeness(plan: Plan, gold: Plan) -> list[list[float]]:
    """For each study of the plan and each of the reference, how alike they are, from 0 to 1.

    They are alike if all three hold, and 0 otherwise:

    - the same ablated part: the same entry of the table of parts, or words as alike as ALIKE;
    - an action that the other side allows: the same one; or REPLACE on one side where both sides set
      the same (removing momentum is replacing it by SGD). REMOVE and ADD are never the same;
    - at least one replacement of both: equal settings once bound, equal numbers, words as alike as ALIKE; or none on
      both sides; or none on one side, where both remove or both add.

    The number is the mean of the parts' likeness and the share of the reference's replacements.
    """
    left, right = ([_Side(study) for study in side.studies] for side in (plan, gold))
    return [[_alike(one, other) for other in right] for one in left]


class _Side:
    """A study with all that the rules compare."""

    def __init__(self, study: Study) -> None:
        self.study = study
        bound = [r for r in bind_study(study, MeZOConfig()) if isinstance(r, Case)]
        named = [part.title for _, part in ranked(study.ablated_part)[:1]]
        self.parts = {variant.part for variant in bound} or set(named)
        self.settings = [variant.settings for variant in bound]
        self.texts = list(_texts(study.replacement))


def _alike(one: _Side, other: _Side) -> float:
    words = similarity(one.study.ablated_part, other.study.ablated_part)
    least = _OTHER_PARTS if one.parts and other.parts else ALIKE
    part = 1.0 if one.parts & other.parts else words if words >= least else 0.0
    common = sum(settings in one.settings for settings in other.settings)
    actions = {one.study.action, other.study.action}
    if len(actions) > 1 and not (common and "REPLACE" in actions):
        return 0.0
    texts = sum(any(_same(mine, theirs) for mine in one.texts) for theirs in other.texts)
    if not one.texts and not other.texts:
        share = 1.0
    elif common or texts or (one.texts and other.texts):
        share = min(1.0, max(common, texts) / max(len(other.settings), len(other.texts), 1))
    else:  # only one side says something
        share = float(actions in ({"REMOVE"}, {"ADD"}))
    return (part + share) / 2 if part and share else 0.0


def _same(mine: str, theirs: str) -> bool:
    left, right = numbers(mine), numbers(theirs)
    # "n = 4" and "4 samples"; but "rank 4 LoRA" and "4 bits" only if their words agree, too
    few = bool(left or right) and min(len(mine.split()), len(theirs.split())) <= 3
    return left == right and (few or similarity(mine, theirs) >= ALIKE)


def _texts(replacement: Any) -> Iterator[str]:
    if isinstance(replacement, dict):
        for key, value in replacement.items():
            yield from (f"{key}: {inner}" for inner in (value if isinstance(value, list) else [value]))
    elif replacement is not None:
        yield from map(str, replacement)


def similarity(one: str, other: str) -> float:
    """From 0 to 1: shared words (Dice), or shared letters in order if that is more."""
    left, right = _stems(one), _stems(other)
    if not left or not right:
        return float(folded(one) == folded(other))
    dice = 2 * len(left & right) / (len(left) + len(right))
    letters = SequenceMatcher(None, folded(one)[:500], folded(other)[:500], autojunk=False).ratio()
    return max(dice, letters if letters > 0.8 else 0.0)  # unrelated texts share half of their letters


def _stems(text: str) -> frozenset[str]:
    """The content words, without the endings of plurals and verbs."""
    words = (word for word in folded(text).split() if not _STOP.fullmatch(word))
    return frozenset(re.sub(r"(?:ations?|ators?|ings?|ed|es|s)$", "", w) if len(w) > 4 else w for w in words)
