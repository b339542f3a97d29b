"""Dividing the budget of a study fairly: how many steps each case's runs have, and saying so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mezo.ablation.run.cases import Case
from mezo.config import MeZOConfig
from mezo.errors import MezoError

Equal = Literal["steps", "passes"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run of a case takes here, measured over a few steps."""

    step: float  # seconds
    fixed: float  # seconds: starting the process, loading the model
    evaluation: float  # seconds of one
    passes: float  # forward passes a step, in the mean over the run

    def seconds(self, steps: int, evaluations: int) -> float:
        return self.fixed + evaluations * self.evaluation + steps * self.step


def scaled(cost: Cost, baseline: MeZOConfig, config: MeZOConfig) -> Cost:
    """About the cost of another config, from the baseline's: a step by its forward passes and examples."""
    work = _work(config) / _work(baseline)
    return replace(cost, step=cost.step * work, passes=cost.passes * work)


def _work(config: MeZOConfig) -> float:
    from mezo.ablation.binding.checks import passes_of

    return passes_of(config) * config.batch_size * config.gradient_accumulation


def by_steps(cases: Sequence[Case], steps: int) -> dict[str, int]:
    """The same number of steps for every case, by key."""
    return {case.key: steps for case in cases}


def by_passes(cases: Sequence[Case], steps: int, costs: Mapping[str, Cost]) -> dict[str, int]:
    """As many forward passes for every case as the baseline takes in `steps`, by key.

    A case whose step takes more of them has fewer steps, at least one; the first case is the baseline.
    Raises MezoError for a case whose passes are not known.
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
    """The same time for every run, which makes its own number of steps of it, by key.

    minutes: of the whole study. at_once: runs at the same time. evaluations: of a run.
    Raises MezoError if that leaves a run no step, or a case's costs are not known.
    """
    seconds = seconds_a_run(cases, seeds, minutes, at_once)
    found = {}
    for case in cases:
        cost = _cost(case, costs)
        found[case.key] = math.floor((seconds - cost.seconds(0, evaluations)) / cost.step)
    if min(found.values()) < 1:
        least = max(_cost(c, costs).seconds(1, evaluations) for c in cases)
        runs = math.ceil(distinct(cases) * seeds / at_once)
        raise MezoError(
            f"--minutes {minutes:g} leaves {seconds:.1f} s for each of {distinct(cases) * seeds} runs, and one"
            f" takes {least:.1f} s with a single step; give more than {least * runs / 60:.1f} minutes, fewer"
            " seeds, or a smaller evaluation (--eval-examples)"
        )
    return found


def seconds_a_run(cases: Sequence[Case], seeds: int, minutes: float, at_once: int) -> float:
    """The time of each run of a study of so many minutes."""
    return 60 * minutes / math.ceil(distinct(cases) * seeds / at_once)


def distinct(cases: Sequence[Case]) -> int:
    """How many cases are run: those of equal settings are run once."""
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
            f"as many forward passes for each run as the baseline takes in {baseline:,} steps: {spread} steps"
        )
    return (
        f"{baseline:,} steps for each run"
        + ("" if low == high else f", but {low:,} to {high:,} where the plan says so")
        + "; variants that take more forward passes a step take more of them in all"
    )


def _cost(case: Case, costs: Mapping[str, Cost]) -> Cost:
    found = costs.get(case.key)
    if found is None:
        raise MezoError(
            f"{case.name}: its steps could not be timed, so it has no fair share; divide by --steps, or"
            " take it out of the plan"
        )
    return found
