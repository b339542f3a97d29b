"""Successive halving (Jamieson and Talwalkar 2016) over short runs of MeZO.

Every setting is tried for a few steps, the better half for twice as many, and so on. Each rung starts from the base
model: a run's schedule stretches over its steps. All trials share one seed, so their directions and batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.search.space import STEPS, SearchedSetting, SearchPlan, grid, plan_by_minutes, plan_by_steps
from mezo.search.trial import measure, run_trial, search_data
from mezo.search.trials import SearchFolder, Trial
from mezo.util.atomic_files import write_text


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to."""

    config: MeZOConfig  # as it was given, with the learning rate and epsilon that were found
    plan: SearchPlan
    trials: tuple[Trial, ...]  # by rung; within one, in the order in which they ran
    path: Path  # best.yaml

    @property
    def best(self) -> SearchedSetting:
        return SearchedSetting(self.config.peak_rate, self.config.epsilon)

    @property
    def ranking(self) -> tuple[SearchedSetting, ...]:
        """All settings, the best first: by the rung they reached, then by their loss there."""
        last = {trial.setting: trial for trial in self.trials}
        return tuple(sorted(last, key=lambda setting: (-last[setting].rung, *_order(last[setting]))))

    @property
    def advice(self) -> str | None:
        """One line if the best learning rate is at an end of those that were tried."""
        rates = sorted({s.learning_rate for s in self.plan.settings})
        rate = self.best.learning_rate
        if len(rates) < 2 or rate not in (rates[0], rates[-1]):
            return None
        end, beyond = ("largest", 3) if rate == rates[-1] else ("smallest", 1 / 3)
        return (
            f"{rate:g} is the {end} learning rate that was tried; a better one may lie beyond it: search again"
            f" with --learning-rates {rate:g},{rate * beyond:.1g},{rate * beyond**2:.1g}"
        )


def tune(
    config: MeZOConfig,
    *,
    output: Path | str,
    learning_rates: Sequence[float] | None = None,
    epsilons: Sequence[float] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    observer: Observer | None = None,
) -> SearchResult:
    """Search for the learning rate and epsilon with the lowest validation loss after a short run.

    config: everything else. learning_rates, epsilons: what is tried, in all pairs; default: around the paper's.
    steps: of the longest trials (200); or minutes: the time of the whole search. output: a folder for search.yaml,
    trials.jsonl and best.yaml; a stopped search continues there. observer: called with the plan, its time, and each
    finished trial.

    Raises MezoError for settings or data that cannot be used, a folder with another search, or if every setting
    diverges.
    """
    observer = observer or Observer()
    if steps is not None and minutes is not None:
        raise MezoError("steps and minutes exclude each other: give one of them")
    settings = grid(config.tuning, learning_rates, epsilons)
    steps = STEPS if steps is None and minutes is None else steps
    if steps is not None:
        plan_by_steps(settings, steps)  # mistakes are reported before the data are read
    folder = SearchFolder(output)
    asked = _asked(config, settings, {"steps": steps} if minutes is None else {"minutes": minutes})
    rungs = folder.open(asked)
    train, validation = search_data(config)
    if rungs is not None:
        plan = SearchPlan(settings, rungs)
        observer.on_note(f"going on with the search in {folder.path}")
    else:
        cost = measure(config, train, validation, settings[0])
        plan = (
            plan_by_steps(settings, steps)
            if steps is not None
            else plan_by_minutes(settings, minutes or 0.0, cost.per_step, cost.per_trial)
        )
        seconds = plan.seconds(cost.per_step, cost.per_trial)
        trials = ", ".join(f"{n} of {steps} steps" for n, steps in zip(plan.sizes, plan.rungs, strict=True))
        time = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
        observer.on_note(
            f"{len(settings)} settings; trials: {trials}; {plan.total_steps:,} steps, about {time}"
        )
        folder.create(asked, plan)
    trials = _climb(config, plan, folder, train, validation, observer)
    best = min((t for t in trials if t.rung == trials[-1].rung), key=_order).setting
    found = config.model_copy(update=best._asdict())
    write_text(folder.best, found.to_yaml())
    return SearchResult(found, plan, tuple(trials), folder.best)


def _climb(
    config: MeZOConfig,
    plan: SearchPlan,
    folder: SearchFolder,
    train: Any,
    validation: Any,
    observer: Observer,
) -> list[Trial]:
    """All trials of all rungs, from the folder where they are done, else run and kept there."""
    done = {(t.rung, t.setting): t for t in folder.trials()}
    trials: list[Trial] = []
    alive = list(plan.settings)
    for rung, steps in enumerate(plan.rungs):
        mine: list[Trial] = []
        for setting in alive:
            trial = done.get((rung, setting))
            if trial is None:
                trial = run_trial(config, train, validation, setting, rung, steps)
                folder.add(trial)
                observer.on_note(_told(trial))
            mine.append(trial)
        trials += mine
        sound = sorted((t for t in mine if not t.diverged), key=_order)
        if not sound:
            low = min(t.learning_rate for t in mine)
            raise MezoError(
                f"all {len(mine)} settings diverged within {steps} steps, from learning rate {low:g} upwards;"
                f" search again in another --output with --learning-rates {low / 10:g},{low / 30:.1g},{low / 100:g}"
            )
        alive = [t.setting for t in sound[: math.ceil(len(mine) / 2)]]
        if len(alive) == 1:
            break
    return trials


def _order(trial: Trial) -> tuple[bool, bool, float]:
    """Sorts the best first; the loss of a trial that broke off is no number to compare."""
    return trial.diverged, trial.too_large, 0.0 if trial.diverged else trial.loss


def _asked(config: MeZOConfig, settings: Sequence[SearchedSetting], budget: dict[str, Any]) -> dict[str, Any]:
    """What a search depends on, as plain values."""
    values = config.model_dump(mode="json")
    for name in ("learning_rate", "epsilon", "eval_every"):
        del values[name]
    return {"settings": [list(s) for s in settings], **budget, "config": values}


def _told(trial: Trial) -> str:
    came = "diverged" if trial.diverged else f"loss {trial.start:.4f} -> {trial.loss:.4f}"
    came += ", steps too large" if trial.too_large and not trial.diverged else ""
    score = "" if trial.diverged or trial.score is None else f", {100 * trial.score:.1f} %"
    return f"{trial.setting}, {trial.steps} steps: {came}{score} ({trial.seconds:.0f} s)"
