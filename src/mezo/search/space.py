"""Which learning rates and epsilons are tried, and for how many steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from mezo.errors import MezoError

# Half-decades from the paper's values (Table 15 and its OPT counterpart: full 1e-7 to 1e-5, LoRA 1e-5 to
# 1e-4, prefix 1e-3 to 1e-2) upwards: models of millions of parameters and runs of thousands of steps are
# served by larger ones than models of billions and 20,000 to 100,000 steps.
LEARNING_RATES: dict[str, tuple[float, ...]] = {
    "full": (3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4),
    "lora": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "prefix": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "norms": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),  # around what served SmolLM2-135M
}
# The paper's, and one beside it; a larger one helps where 16-bit weights round a small one away.
EPSILONS: dict[str, tuple[float, ...]] = {
    "full": (1e-3, 5e-3),
    "lora": (1e-3, 1e-2),
    "prefix": (1e-2, 1e-1),
    "norms": (1e-3, 1e-2),
}
STEPS = 200  # of the longest trials
_FEWEST = 4  # steps of the shortest


class SearchedSetting(NamedTuple):
    """What is searched for."""

    learning_rate: float
    epsilon: float

    def __str__(self) -> str:
        return f"learning rate {self.learning_rate:g}, epsilon {self.epsilon:g}"


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Successive halving: all settings for a few steps, the better half for twice as many, and so on."""

    settings: tuple[SearchedSetting, ...]
    rungs: tuple[int, ...]  # steps of a trial, by rung

    @property
    def sizes(self) -> tuple[int, ...]:
        """Trials of each rung, if none diverges."""
        return rung_sizes(len(self.settings))

    @property
    def total_steps(self) -> int:
        return sum(size * steps for size, steps in zip(self.sizes, self.rungs, strict=True))

    def seconds(self, per_step: float, per_trial: float) -> float:
        """What all of it takes, from what a step takes and what a trial takes besides its steps."""
        return self.total_steps * per_step + sum(self.sizes) * per_trial


def grid(
    tuning: str, learning_rates: Sequence[float] | None = None, epsilons: Sequence[float] | None = None
) -> tuple[SearchedSetting, ...]:
    """Every learning rate with every epsilon; by default those around the paper's for the tuning mode.

    Raises MezoError for values that are not positive, or fewer than two settings.
    """
    rates = tuple(learning_rates or LEARNING_RATES.get(tuning, LEARNING_RATES["lora"]))
    scales = tuple(epsilons or EPSILONS.get(tuning, EPSILONS["lora"]))
    for name, values in (("learning rates", rates), ("epsilons", scales)):
        if any(not (math.isfinite(x) and x > 0) for x in values):
            raise MezoError(f"expected {name} above 0, found {', '.join(f'{x:g}' for x in values)}")
    settings = tuple(SearchedSetting(*pair) for pair in product(sorted(set(rates)), sorted(set(scales))))
    if len(settings) < 2:
        raise MezoError(
            f"expected at least 2 settings to choose from, found learning rate {rates[0]:g} and epsilon"
            f" {scales[0]:g} alone; give more learning rates or epsilons"
        )
    return settings


def rung_sizes(settings: int) -> tuple[int, ...]:
    """How many trials each rung has: halves, rounded up, down to the last two."""
    sizes = [settings]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / 2))
    return tuple(sizes)


def plan_by_steps(settings: tuple[SearchedSetting, ...], steps: int) -> SearchPlan:
    """`steps`: of the last rung. Raises MezoError if the first one would have next to none."""
    count = len(rung_sizes(len(settings)))
    first = steps >> (count - 1)
    if first < _FEWEST:
        raise MezoError(
            f"{len(settings)} settings are halved {count - 1} times, so steps={steps} leaves {first} for the first"
            f" trials; give at least {_FEWEST << (count - 1)} steps, or fewer settings"
        )
    return SearchPlan(settings, tuple(steps >> n for n in reversed(range(count))))


def plan_by_minutes(
    settings: tuple[SearchedSetting, ...], minutes: float, per_step: float, per_trial: float
) -> SearchPlan:
    """The longest trials that fit. Raises MezoError if none do."""
    count = len(rung_sizes(len(settings)))
    shortest = plan_by_steps(settings, _FEWEST << (count - 1))
    if shortest.seconds(per_step, per_trial) > 60 * minutes:
        raise MezoError(
            f"{len(settings)} settings take at least {shortest.seconds(per_step, per_trial) / 60:.1f} minutes"
            f" here, found minutes={minutes:g}; give more, or fewer learning rates and epsilons"
        )
    room = 60 * minutes - sum(shortest.sizes) * per_trial
    steps = int(room / per_step / shortest.total_steps * shortest.rungs[-1])
    while plan_by_steps(settings, steps).seconds(per_step, per_trial) > 60 * minutes:
        steps -= 1
    return plan_by_steps(settings, steps)
