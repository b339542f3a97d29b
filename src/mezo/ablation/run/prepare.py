"""Everything that is settled before a study's first run: what is bound, what each run takes, its share."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.variants import Bound
from mezo.ablation.plans.plan import Plan
from mezo.ablation.run import budget
from mezo.ablation.run.budget import Cost, Equal
from mezo.ablation.run.cases import Case, Run, cases_of, runs_of
from mezo.ablation.run.folder import Agreed, StudyFolder
from mezo.ablation.run.processes import Children, environment
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
    estimate: bool | None = None  # whether to time the baseline for an estimate; False: no timing whatever
    threshold: tuple[str | None, float] | None = None  # (metric or the headline, value); None: the baseline's
    dry: bool = False  # whether nothing is run after this

    @property
    def divides(self) -> bool:
        """Whether the steps of a run follow from what a step of each variant takes."""
        return self.minutes is not None or self.equal == "passes"

    @property
    def times_all(self) -> bool:
        return self.divides and (not self.dry or self.estimate is True)


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
        if self.options.divides and not self.agreed.costs:
            return (
                "divided by what a step of each variant takes, when the study begins; --estimate finds it now"
            )
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
    """Bind the plan, time what the options ask for, and divide the budget. Writes nothing to `output`.

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
    """(costs, errors) by a case's key: of all cases where the budget is divided by them, else by the baseline's.

    Raises MezoError if the baseline cannot make a step.
    """
    if options.divides and options.estimate is False:
        raise MezoError("--minutes and --equal passes divide by what a step takes: leave --no-timing out")
    if not options.times_all and not options.estimate:
        return {}, {}
    timed = list({case.key: case for case in cases}.values()) if options.times_all else [cases[0]]
    costs: dict[str, Cost] = {}
    errors: dict[str, str] = {}
    for number, case in enumerate(timed, start=1):
        say(f"timing a few steps, {number} of {len(timed)}: {case.name}")
        found = _time(case, config)
        if isinstance(found, Cost):
            costs[case.key] = found
            say(f"{case.name}: {found.step:.3g} s a step, {found.evaluation:.3g} s an evaluation")
        elif case.key == cases[0].key:
            raise MezoError(f"the baseline cannot make a step: {found}")
        else:
            errors[case.key] = found
    if not options.times_all:
        costs = {case.key: budget.scaled(costs[cases[0].key], cases[0].config, case.config) for case in cases}
    return costs, errors


def _time(case: Case, config: MeZOConfig) -> Cost | str:
    """What a run of the case takes, from a process that makes a few steps; or why it cannot."""
    with tempfile.TemporaryDirectory(prefix="mezo-timing-") as name:
        folder = Path(name)
        request = {
            "configs": {case.key: case.config.model_dump(mode="json")},
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
            return str(ended.error)
        found = json.loads((folder / "costs.json").read_text())[case.key]
    return found["error"] if "error" in found else Cost(**found)


def _steps(
    cases: Sequence[Case], config: MeZOConfig, options: Options, costs: Mapping[str, Cost], at_once: int
) -> dict[str, int]:
    """Steps of a run by its case's key. A case that could not be timed gets the baseline's: it will fail."""
    if not options.times_all:
        return budget.by_steps(cases, config.num_steps)
    timed = [case for case in cases if case.key in costs]
    if options.minutes is not None:
        each = -(-config.num_steps // config.eval_every) + 1 if config.eval_every else _EVALUATIONS
        found = budget.by_minutes(
            timed, options.seeds, options.minutes, costs, at_once=at_once, evaluations=each
        )
    else:
        found = budget.by_passes(timed, config.num_steps, costs)
    return {case.key: found.get(case.key, found[cases[0].key]) for case in cases}
