"""The rewards by name: what makes the function, given its settings. A new one is one file and one line here."""

from collections.abc import Callable

from mezo.objectives.rewards.base import Function, Scorer
from mezo.objectives.rewards.contains import contains
from mezo.objectives.rewards.countdown import countdown
from mezo.objectives.rewards.exact import exact
from mezo.objectives.rewards.json_form import json_form
from mezo.objectives.rewards.judge import JudgeReward
from mezo.objectives.rewards.last_number import last_number
from mezo.objectives.rewards.length import length
from mezo.objectives.rewards.pattern import pattern

REWARDS: dict[str, Callable[..., Function | Scorer]] = {
    "last-number": last_number,
    "countdown": countdown,
    "exact": exact,
    "contains": contains,
    "regex": pattern,
    "json": json_form,
    "length": length,
    "judge": JudgeReward,
}

__all__ = ["REWARDS", "Function", "JudgeReward", "Scorer"]
