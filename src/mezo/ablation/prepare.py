"""Everything that is settled before a study's first run: what is bound, what each run takes, its share."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mezo.ablation import budget
from mezo.ablation.binding import Bound, bind
from mezo.ablation.budget import Cost, Equal
from mezo.ablation.children import Children, environment
from mezo.ablation.folder import Agreed, StudyFolder
from mezo.ablation.plan import Plan
from mezo.ablation.study import Case, Run, cases_of, runs_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.run import to_json, write_text
from mezo.tasks import Task, task_for

_EVALUATIONS = 11  # of a run that is evaluated at every tenth of its steps, its start included


@dataclass(frozen=True, slots=True)
class Options:
    """How a study is run; what is run is the plan's and the config's."""

    seeds: int = 3
    minutes: float | None = None  # for the whole study, in place of the config's steps
    equal: Equal = "steps"  # what every run has as many of
    jobs: int | None = None  # runs at the same time; None: one, or one a GPU
    strict: bool = False  # whether a replacement that cannot be bound is an error
    timing: bool = True  # whether steps are timed first; without it there is no estimate
    threshold: tuple[str | None, float] | None = None  # (metric or the headline, value); None: the baseline's


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study that can begin, or go on."""

    plan: Plan
    bound: Bound
    config: MeZOConfig
    options: Options
    folder: StudyFolder
    cases: tuple[Case, ...]  # the baseline first
    runs: tuple[Run, ...]
    agreed: Agreed
    devices: tuple[str, ...]  # one a run at the same time
    metrics: tuple[str, ...] = field(default=())  # of the evaluation, beside the task's own

    @property
    def rouge(self) -> list[str]:
        """The kinds of ROUGE among the metrics of an evaluation."""
        own = task_for(self.config.task, self.config.label_words, self.config.template).metrics
        return [name for name in (*own, *self.metrics) if name.startswith("rouge")]

    @property
    def budget(self) -> str:
        return budget.words(self.cases, self.agreed.steps, self.options.equal, self.options.minutes)

    def left(self) -> list[Run]:
        """The runs that are still to be made, each once: the baseline's before the others.

        With the baseline's the threshold is known, before what is measured against it.
        """
        runs = {run.key: run for run in reversed(self.runs) if not self.folder.is_finished(run.key)}
        ordered = {run.key: runs[run.key] for run in self.runs if run.key in runs}
        return sorted(ordered.values(), key=lambda run: run.case.study is not None)

    def seconds(self, run: Run) -> float | None:
        """About what a run takes; None where it was not timed."""
        cost = self.agreed.costs.get(run.case.key)
        return None if cost is None else cost.seconds(run.config.num_steps, evaluations(run.config))

    def estimate(self) -> float | None:
        """About the seconds that what is left takes; None where a run of it was not timed.

        Runs that failed while they were timed will fail at once, and count as nothing.
        """
        known = [self.seconds(run) for run in self.left() if run.case.key not in self.agreed.errors]
        found = [seconds for seconds in known if seconds is not None]
        return sum(found) / len(self.devices) if len(found) == len(known) else None


def prepare(
    plan: Plan,
    config: MeZOConfig,
    output: Path | str,
    options: Options,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Bind the plan, time its cases, and divide the budget. Writes nothing to `output`.

    Raises MezoError if nothing of the plan can be bound (or, with `strict`, not all of it), if `output`
    holds another study, or if the baseline itself cannot make a step.
    """
    bound = bind(plan, config)
    _check_bound(bound, strict=options.strict)
    task = task_for(config.task, config.label_words, config.template)
    cases, metrics = cases_of(bound, config), extra_metrics(bound, task)
    devices, folder = slots(config, options.jobs), StudyFolder(output)
    asked = {
        "config": config.model_dump(mode="json"),
        "variants": [{"study": c.study, "label": c.label, "settings": dict(c.settings)} for c in cases[1:]],
        "equal": options.equal,
        "minutes": options.minutes,
        "metrics": list(metrics),
    }
    agreed = folder.agreed(asked)
    if agreed is None:
        costs, errors = _timed(cases, config, options, say)
        agreed = Agreed(asked, costs, errors, _steps(cases, config, options, costs, len(devices)))
    runs = runs_of(cases, options.seeds, agreed.steps, config.eval_every or None)
    return Prepared(
        plan, bound, config, options, folder, tuple(cases), tuple(runs), agreed, tuple(devices), metrics
    )


def evaluations(config: MeZOConfig) -> int:
    """How often a run is evaluated, before its first step and after its last included."""
    return 2 + ((config.num_steps - 1) // config.eval_every if config.eval_every else 0)


def extra_metrics(bound: Bound, task: Task) -> tuple[str, ...]:
    """Metrics that the plan asks for, the task allows and is not judged by anyway.

    F1 of a choice between classes is their macro F1; ROUGE (L) needs answers that are written.
    """
    wanted = {name for names in bound.metrics.values() for name in names}
    found = []
    if "f1" in wanted and task.classes and not any("f1" in name for name in task.metrics):
        found.append("macro-f1")
    written = not task.has_candidates
    if "rouge" in wanted and written and not any("rouge" in name for name in task.metrics):
        found.append("rougeL")
    return tuple(found)


def slots(config: MeZOConfig, jobs: int | None) -> list[str]:
    """The device of each of the runs at the same time: every GPU in turn, or `jobs` times the config's own.

    A serving engine takes what devices it needs, so there its runs come one after another.
    """
    devices = [config.device]
    if config.device in ("auto", "cuda") and config.engine == "transformers":
        import torch

        if (count := torch.cuda.device_count()) > 1:
            devices = [f"cuda:{number}" for number in range(count)]
    return [devices[number % len(devices)] for number in range(jobs or len(devices))]


def threads(config: MeZOConfig, at_once: int) -> int | None:
    """The threads of a run that shares the cores with others; None: as many as there are."""
    if at_once == 1 or config.device.startswith("cuda"):
        return None
    return max(1, (os.cpu_count() or 1) // at_once)


def _check_bound(bound: Bound, *, strict: bool) -> None:
    if bound.variants and not (strict and bound.unbound):
        return
    reasons = "; ".join(f"{item.study}, {item.text}: {item.reason}" for item in bound.unbound)
    if bound.variants:
        raise MezoError(f"{len(bound.unbound)} of the plan cannot be run (--strict): {reasons}")
    raise MezoError(
        f"nothing of the plan can be run: {reasons or 'it has no replacements'}; name the settings of a study"
        " under `set:`, see docs/ablation.md"
    )


def _timed(
    cases: Sequence[Case], config: MeZOConfig, options: Options, say: Callable[[str], None]
) -> tuple[dict[str, Cost], dict[str, str]]:
    """(costs, errors) by a case's key, from a process that makes a few steps of each."""
    if not options.timing:
        if options.minutes is not None or options.equal == "passes":
            raise MezoError("--minutes and --equal passes divide by what a step takes: leave --no-timing out")
        return {}, {}
    say(f"timing a few steps of {budget.distinct(cases)} settings")
    with tempfile.TemporaryDirectory(prefix="mezo-timing-") as name:
        folder = Path(name)
        request = {
            "configs": {case.key: case.config.model_dump(mode="json") for case in cases},
            "evaluation_seed": config.seed,
            "output": str(folder / "costs.json"),
        }
        write_text(folder / "request.json", to_json(request))
        children = Children(trusting=config.trust_remote_code)
        try:
            ended = children.run(folder / "request.json", folder / "log.txt", environment(None))
        finally:
            children.stop()
        if not ended.ok:
            raise MezoError(f"timing the runs: {ended.error}")
        found = json.loads((folder / "costs.json").read_text())
    return _read_costs(cases, found)


def _read_costs(cases: Sequence[Case], found: Mapping[str, Any]) -> tuple[dict[str, Cost], dict[str, str]]:
    errors = {key: value["error"] for key, value in found.items() if "error" in value}
    if cases[0].key in errors:
        raise MezoError(f"the baseline cannot make a step: {errors[cases[0].key]}")
    return {key: Cost(**value) for key, value in found.items() if key not in errors}, errors


def _steps(
    cases: Sequence[Case], config: MeZOConfig, options: Options, costs: Mapping[str, Cost], at_once: int
) -> dict[str, int]:
    """Steps of a run by its case's key. A case that could not be timed gets the baseline's: it will fail."""
    timed = [case for case in cases if case.key in costs] if options.timing else list(cases)
    if options.minutes is not None:
        each = -(-config.num_steps // config.eval_every) + 1 if config.eval_every else _EVALUATIONS
        found = budget.by_minutes(
            timed, options.seeds, options.minutes, costs, at_once=at_once, evaluations=each
        )
    elif options.equal == "passes":
        found = budget.by_passes(timed, config.num_steps, costs)
    else:
        found = budget.by_steps(timed, config.num_steps)
    return {case.key: found.get(case.key, found[cases[0].key]) for case in cases}
