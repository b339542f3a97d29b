"""Rewards as an objective: of this package, any Python function, or a sum of several."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mezo.objectives.base import OutputObjective
from mezo.objectives.rewards.base import Function, Scorer, checked, compares, comparing, each
from mezo.scoring import Example


@dataclass(frozen=True, slots=True)
class Reward(OutputObjective):
    """-(mean reward over the batch). Make one with `reward_of`, or by name.

    A reward is of (row, output). row: the fields of the row, and `references`, the list of accepted answers, where the task
    has them. output: the generated text.
    """

    scorer: Scorer
    telling: Callable[[], str | None] = lambda: None

    def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        rewards = self.each(examples, outputs)
        return -math.fsum(rewards) / len(rewards)

    def each(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[float]:
        rows = [row_of(example) for example in examples]
        return checked(self.name, rows, outputs, self.scorer(rows, outputs))

    def told(self) -> str | None:
        return self.telling()


def row_of(example: Example) -> dict[str, Any]:
    """What a reward sees of an example."""
    return {**(example.fields or {}), "references": list(example.references)}


def reward_of(function: Function, name: str) -> Reward:
    """A function of (row, output) as an objective."""
    return reward(name, each(name, function))


def reward(
    name: str, scorer: Scorer, metric: str | None = None, telling: Callable[[], str | None] = lambda: None
) -> Reward:
    """A scorer as an objective. metric: what it is called where it is reported, by default its name."""
    return Reward(
        name,
        needs_candidates=False,
        metric=metric or name,
        scorer=scorer,
        telling=telling,
        needs_answers=compares(scorer),
    )


def added(name: str, parts: Sequence[tuple[float, Reward]]) -> Reward:
    """The sum of rewards, with weights."""

    def score(rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[float]:
        columns = [checked(part.name, rows, outputs, part.scorer(rows, outputs)) for _, part in parts]
        weights = [weight for weight, _ in parts]
        return [
            math.fsum(w * v for w, v in zip(weights, row, strict=True)) for row in zip(*columns, strict=True)
        ]

    def told() -> str | None:
        return "; ".join(words for _, part in parts if (words := part.told())) or None

    needs = any(part.needs_answers for _, part in parts)
    return reward(name, comparing(score) if needs else score, "reward:sum", told)
