"""Dividing the budget of a study: how many steps the runs of each case have."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mezo.ablation.binding.checks import passes_of
from mezo.ablation.run.cases import Case
from mezo.config import MeZOConfig
from mezo.errors import MezoError

Equal = Literal["steps", "passes"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The measured cost of a run on this machine."""

    step: float  # seconds
    fixed: float  # seconds: starting the process, loading the model
    evaluation: float  # seconds of one
    passes: float  # forward passes a step, as the mean over the run

    def seconds(self, steps: int, evaluations: int) -> float:
        return self.fixed + evaluations * self.evaluation + steps * self.step


def scaled(cost: Cost, baseline: MeZOConfig, config: MeZOConfig) -> Cost:
    """The estimated cost of a config, from the baseline's by the forward passes and examples of a step."""
    work = [passes_of(c) * c.batch_size * c.gradient_accumulation for c in (config, baseline)]
    return replace(cost, step=cost.step * work[0] / work[1], passes=cost.passes * work[0] / work[1])


def by_steps(cases: Sequence[Case], steps: int) -> dict[str, int]:
    """The same number of steps for every case, by key."""
    return {case.key: steps for case in cases}


def by_passes(cases: Sequence[Case], steps: int, costs: Mapping[str, Cost]) -> dict[str, int]:
    """By key, steps with as many forward passes as the first case, the baseline, has in `steps`; at least one step.

    Raises MezoError for a case without a cost.
    """
    budget = steps * _cost(cases[0], costs).passes
    return {case.key: max(1, round(budget / _cost(case, costs).passes)) for case in cases}


def by_minutes(
    cases: Sequence[Case],
    seeds: int,
    minutes: float,
    costs: Mapping[str, Cost],
    *,
    at_once: int,
    evaluations: int,
) -> dict[str, int]:
    """By key, the steps that fit into an equal share of the time.

    minutes: of the whole study. at_once: runs at the same time. evaluations: of a run.
    Raises MezoError if a run has no time for a step, or for a case without a cost.
    """
    count = distinct(cases) * seeds
    rounds = math.ceil(count / at_once)
    seconds = 60 * minutes / rounds
    known = [_cost(case, costs) for case in cases]
    steps = [math.floor((seconds - cost.seconds(0, evaluations)) / cost.step) for cost in known]
    if min(steps) < 1:
        least = max(cost.seconds(1, evaluations) for cost in known)
        raise MezoError(
            f"--minutes {minutes:g} leaves {seconds:.1f} s for each of {count} runs, and one takes {least:.1f} s with"
            f" a single step; give more than {least * rounds / 60:.1f} minutes, fewer seeds, or a smaller evaluation"
            " (--eval-examples)"
        )
    return {case.key: each for case, each in zip(cases, steps, strict=True)}


def distinct(cases: Sequence[Case]) -> int:
    """How many cases are run; those of equal settings are run once."""
    return len({case.key for case in cases})


def words(cases: Sequence[Case], steps: Mapping[str, int], equal: Equal, minutes: float | None) -> str:
    """The budget in a sentence, for the terminal and the report."""
    counts = [int(case.settings.get("num_steps", steps[case.key])) for case in cases]
    low, high, baseline = min(counts), max(counts), counts[0]
    if minutes is not None:
        spread = f"{baseline:,} steps of the baseline, {low:,} to {high:,} of all"
        return f"{minutes:g} minutes in all, the same time for each run: {spread}"
    if equal == "passes":
        spread = f"{low:,} to {high:,}" if low != high else f"{low:,}"
        return (
            f"as many forward passes for each run as the baseline has in {baseline:,} steps: {spread} steps"
        )
    other = "" if low == high else f", but {low:,} to {high:,} where the plan says so"
    return (
        f"{baseline:,} steps for each run{other}; variants with more forward passes a step have more in all"
    )


def _cost(case: Case, costs: Mapping[str, Cost]) -> Cost:
    if case.key not in costs:
        raise MezoError(
            f"{case.name}: its steps could not be timed, so its share is not known; divide by --steps, or remove it"
            " from the plan"
        )
    return costs[case.key]
