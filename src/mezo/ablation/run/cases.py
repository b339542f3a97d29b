"""What a study runs: its cases (the baseline and each variant, as configs), each case's runs, one a seed, and their steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mezo.ablation.binding.case import Case, key_of
from mezo.ablation.binding.checks import passes_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError

BASELINE = "baseline"
Equal = Literal["steps", "passes"]
_CURVE = 10  # evaluations of a run after its start, by default


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a study. Runs of equal keys are made once."""

    case: Case
    number: int  # of its seed, from 0: variants are compared with the baseline's run of the same number
    config: MeZOConfig

    @property
    def key(self) -> str:
        return key_of(self.config)

    @property
    def name(self) -> str:
        return f"{self.case.name}, seed {self.config.seed}"


def run_of(case: Case, number: int, steps: int, eval_every: int | None) -> Run:
    """The run of the case's seed `number` (from 0), `steps` long.

    eval_every: steps between evaluations; None: a tenth of the run. The case's own settings override both.
    """
    own = {n: case.settings[n] for n in ("num_steps", "warmup_steps", "eval_every") if n in case.settings}
    steps = int(own.get("num_steps", steps))
    changes = {
        "num_steps": steps,
        "warmup_steps": case.config.warmup_steps * steps // case.config.num_steps,
        "eval_every": -(-steps // _CURVE) if eval_every is None else eval_every,
        "seed": (case.config.seed + number) % 2**64,
    }
    return Run(case, number, MeZOConfig.build(**{**case.config.model_dump(), **changes, **own}))


# -------------------------------------------------------------------------------- how many steps each has


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


def by_passes(cases: Sequence[Case], steps: int, costs: Mapping[str, Cost]) -> dict[str, int]:
    """By key, steps with as many forward passes as the first case, the baseline, has in `steps`; at least one step."""
    budget = steps * costs[cases[0].key].passes
    return {case.key: max(1, round(budget / costs[case.key].passes)) for case in cases}


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
    Raises MezoError if a run has no time for a step.
    """
    count = distinct(cases) * seeds
    rounds = math.ceil(count / at_once)
    seconds = 60 * minutes / rounds
    known = {case.key: costs[case.key] for case in cases}
    steps = {key: math.floor((seconds - c.seconds(0, evaluations)) / c.step) for key, c in known.items()}
    if min(steps.values()) < 1:
        least = max(cost.seconds(1, evaluations) for cost in known.values())
        raise MezoError(
            f"--minutes {minutes:g} leaves {seconds:.1f} s for each of {count} runs, and one takes {least:.1f} s with"
            f" a single step; give more than {least * rounds / 60:.1f} minutes, fewer seeds, or a smaller evaluation"
            " (--eval-examples)"
        )
    return steps


def distinct(cases: Sequence[Case]) -> int:
    """How many cases are run; those of equal settings are run once."""
    return len({case.key for case in cases})


def budget_words(cases: Sequence[Case], steps: Mapping[str, int], equal: Equal, minutes: float | None) -> str:
    """The budget in a sentence, for the terminal and the report."""
    counts = [int(case.settings.get("num_steps", steps[case.key])) for case in cases]
    low, high, baseline = min(counts), max(counts), counts[0]
    spread = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    if minutes is not None:
        of_all = f"{baseline:,} steps of the baseline, {low:,} to {high:,} of all"
        return f"{minutes:g} minutes in all, the same time for each run: {of_all}"
    if equal == "passes":
        return (
            f"as many forward passes for each run as the baseline has in {baseline:,} steps: {spread} steps"
        )
    other = "" if low == high else f", but {spread} where the plan says so"
    return (
        f"{baseline:,} steps for each run{other}; variants with more forward passes a step have more in all"
    )
