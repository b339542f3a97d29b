"""What is settled before a study's first run: its variants, the cost of a run, the share of the budget."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.case import Bound, Case
from mezo.ablation.plans.plan import Plan
from mezo.ablation.run.cases import (
    BASELINE,
    Cost,
    Equal,
    Run,
    budget_words,
    by_minutes,
    by_passes,
    run_of,
)
from mezo.ablation.run.costs import Say, costs_by_timing, costs_of_runs, with_estimates
from mezo.ablation.run.folder import Agreed, StudyFolder
from mezo.config import MeZOConfig
from mezo.data.from_config import task_of, with_task
from mezo.errors import MezoError
from mezo.tasks import Task

_EVALUATIONS = 11  # of a run that is evaluated at every tenth of its steps, its start included


@dataclass(frozen=True, slots=True)
class Options:
    """How a study is run; the plan and the config say what is run."""

    seeds: int = 3
    minutes: float | None = None  # for the whole study, in place of the config's steps
    equal: Equal = "steps"  # what every run has the same number of
    jobs: int | None = None  # runs at the same time; None: one, or one a GPU
    strict: bool = False  # whether a replacement that is not bound is an error
    estimate: bool | None = None  # whether to estimate the time; False: no timing at all
    threshold: tuple[str | None, float] | None = None  # (metric or the headline, value); None: the baseline's
    dry: bool = False  # whether nothing is run afterwards

    @property
    def divides(self) -> bool:
        """Whether the steps of a run follow from the time or passes of a step of each variant."""
        return self.minutes is not None or self.equal == "passes"

    @property
    def times_all(self) -> bool:
        return self.divides and (not self.dry or self.estimate is True)


@dataclass(frozen=True, slots=True)
class PreparedStudy:
    """A study that can begin or continue."""

    plan: Plan
    bound: Bound
    config: MeZOConfig
    options: Options
    folder: StudyFolder
    cases: tuple[Case, ...]  # the baseline first
    runs: tuple[Run, ...]
    agreed: Agreed
    devices: tuple[str, ...]  # one for each run at the same time
    metrics: tuple[str, ...] = ()  # of the evaluation, in addition to the task's own
    timed_by: str = ""  # where the costs come from, for people

    @property
    def budget(self) -> str:
        if self.options.divides and not self.agreed.costs:
            return "divided by the cost of a step of each variant when the study begins; --estimate measures it now"
        return budget_words(self.cases, self.agreed.steps, self.options.equal, self.options.minutes)

    def left(self) -> list[Run]:
        """The runs that are not finished, each once. The baseline's come first, as they set the threshold."""
        left: dict[str, Run] = {}
        for run in self.runs:
            if not self.folder.is_finished(run.key):
                left.setdefault(run.key, run)
        return sorted(left.values(), key=lambda run: run.case.study is not None)

    def seconds(self, run: Run) -> float | None:
        """The estimated time of a run; None if it was not timed."""
        cost = self.agreed.costs.get(run.case.key)
        return None if cost is None else cost.seconds(run.config.num_steps, evaluations(run.config))

    def estimate(self) -> float | None:
        """The estimated seconds of what is left; None if a run of it was not timed.

        Runs that failed while they were timed will fail at once, and count as nothing.
        """
        known = [self.seconds(run) for run in self.left() if run.case.key not in self.agreed.errors]
        return None if None in known else sum(filter(None, known)) / len(self.devices)


def prepare(
    plan: Plan,
    config: MeZOConfig,
    output: Path | str,
    options: Options,
    say: Say = lambda text: None,
) -> PreparedStudy:
    """Bind the plan, time what the options ask for, and divide the budget. Writes nothing to `output`.

    Raises MezoError if nothing of the plan can be bound (or, with `strict`, not all of it), if its words and `set`
    disagree, if `output` holds another study, or if the baseline itself cannot make a step.
    """
    config = with_task(config)
    bound = bind(plan, config)
    _check_bound(bound, strict=options.strict)
    task = task_of(config)
    cases, metrics = (Case(None, BASELINE, {}, config), *bound.variants), extra_metrics(bound, task)
    devices, folder = slots(config, options.jobs), StudyFolder(output)
    asked = {
        "config": config.model_dump(mode="json"),
        "variants": [{"study": c.study, "label": c.label, "settings": c.settings} for c in bound.variants],
        "equal": options.equal,
        "minutes": options.minutes,
        "metrics": list(metrics),
    }
    agreed, timed_by = folder.agreed(asked), "as timed when the study began"
    begun = agreed is not None
    if agreed is None:
        if options.divides and options.estimate is False:
            raise MezoError(
                "--minutes and --equal passes divide by the cost of a step: leave --no-timing out"
            )
        costs: dict[str, Cost] = {}
        errors: dict[str, str] = {}
        timed = "the baseline, by forward passes and examples,"
        if options.times_all:
            timed, (costs, errors) = "each variant", costs_by_timing(cases, config, say)
        elif options.estimate:
            costs = with_estimates(cases, costs_by_timing(cases[:1], config, say)[0])
        timed_by = f"from a few steps of {timed} and a part of an evaluation, timed here"
        agreed = Agreed(asked, costs, errors, _steps(cases, config, options, costs, len(devices)))
    # seed by seed, so that a study that is stopped early has compared every variant
    each = ((case, number) for number in range(options.seeds) for case in cases)
    runs = tuple(run_of(case, n, agreed.steps[case.key], config.eval_every or None) for case, n in each)
    if begun and options.estimate and any(case.key not in agreed.costs for case in cases):
        found = costs_of_runs(cases, runs, folder, config, say)
        timed_by = "from the finished runs, and the baseline by forward passes and examples"
        agreed = replace(agreed, costs={**found, **agreed.costs})
    settled = {"agreed": agreed, "devices": tuple(devices), "metrics": metrics, "timed_by": timed_by}
    return PreparedStudy(plan, bound, config, options, folder, cases, runs, **settled)


def _check_bound(bound: Bound, *, strict: bool) -> None:
    """Raises MezoError if the plan contradicts itself, or nothing of it (with `strict`: not all) can be run."""
    if bound.disagreements:
        raise MezoError(f"words and set of the plan say different things: {'; '.join(bound.disagreements)}")
    reasons = "; ".join(map(str, bound.unbound))
    if not bound.variants:
        raise MezoError(
            f"nothing of the plan can be run: {reasons or 'it has no replacements'}; name the settings of a study"
            " under `set:`, see docs/ablation.md"
        )
    if strict and bound.unbound:
        raise MezoError(f"{len(bound.unbound)} of the plan cannot be run (--strict): {reasons}")


def evaluations(config: MeZOConfig) -> int:
    """Evaluations of a run, including those before its first step and after its last."""
    return 2 + ((config.num_steps - 1) // config.eval_every if config.eval_every else 0)


def extra_metrics(bound: Bound, task: Task) -> tuple[str, ...]:
    """Metrics that the plan asks for and the task allows, in addition to its own.

    F1 of a choice between classes is their macro F1; ROUGE (L) needs written answers.
    """
    wanted = {name for names in bound.metrics.values() for name in names}
    own = " ".join(task.metrics)
    f1 = "f1" in wanted and task.classes and "f1" not in own
    rouge = "rouge" in wanted and not task.has_candidates and "rouge" not in own
    return (*(["macro-f1"] if f1 else []), *(["rougeL"] if rouge else []))


def slots(config: MeZOConfig, jobs: int | None) -> list[str]:
    """The device of each run at the same time: every GPU in turn, or `jobs` times the config's own.

    A serving engine chooses its devices itself, so its runs come one after another.
    """
    devices = [config.device]
    if config.device in ("auto", "cuda") and config.engine == "transformers":
        import torch

        if (count := torch.cuda.device_count()) > 1:
            devices = [f"cuda:{number}" for number in range(count)]
    return [devices[number % len(devices)] for number in range(jobs or len(devices))]


def threads(config: MeZOConfig, at_once: int) -> int | None:
    """The threads of a run that shares the cores with others; None: all of them."""
    if at_once == 1 or config.device.startswith("cuda"):
        return None
    return max(1, (os.cpu_count() or 1) // at_once)


def _steps(
    cases: Sequence[Case], config: MeZOConfig, options: Options, costs: Mapping[str, Cost], at_once: int
) -> dict[str, int]:
    """Steps of a run by its case's key. A case that could not be timed gets the baseline's: it will fail."""
    if not options.times_all:
        return {case.key: config.num_steps for case in cases}
    timed = [case for case in cases if case.key in costs]
    if options.minutes is None:
        found = by_passes(timed, config.num_steps, costs)
    else:
        each = evaluations(config) if config.eval_every else _EVALUATIONS
        shared = {"at_once": at_once, "evaluations": each}
        found = by_minutes(timed, options.seeds, options.minutes, costs, **shared)
    return {case.key: found.get(case.key, found[cases[0].key]) for case in cases}
