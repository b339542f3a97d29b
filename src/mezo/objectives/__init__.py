"""The objectives by name. A new one is one file and one line here."""

import inspect
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from mezo.errors import MezoError, near
from mezo.metrics.drop import DROP_F1
from mezo.metrics.rouge import ROUGE
from mezo.metrics.squad import SQUAD_F1
from mezo.objectives.accuracy import NegativeAccuracy
from mezo.objectives.answer_ce import AnswerCrossEntropy
from mezo.objectives.base import LogprobObjective, Objective, OutputObjective
from mezo.objectives.candidate_ce import CandidateCrossEntropy
from mezo.objectives.dpo import DPO
from mezo.objectives.negative_metric import NegativeMetric, negative
from mezo.objectives.orpo import ORPO
from mezo.objectives.preference import Pairs, PreferenceObjective
from mezo.objectives.reward import Reward, added, reward, reward_of
from mezo.objectives.rewards import REWARDS, JudgeReward
from mezo.objectives.rewards.base import comparing, each
from mezo.objectives.rewards.workers import RewardWorkers
from mezo.objectives.simpo import SimPO
from mezo.scoring import Example
from mezo.util import plugins
from mezo.util.weighted_names import weighted

OBJECTIVES: dict[str, LogprobObjective] = {
    "answer-ce": AnswerCrossEntropy(),
    "candidate-ce": CandidateCrossEntropy(),
    "accuracy": NegativeAccuracy(),
    "dpo": DPO(),
    "simpo": SimPO(),
    "orpo": ORPO(),
}
_NO_SETTINGS = {field.name for field in fields(PreferenceObjective)}  # fields that say what an objective is
_OF_OUTPUTS = ("f1", "rouge", *(f"rouge:{kind}" for kind in ROUGE))


def objective_named(name: str, metrics: Sequence[str] = (), *, timeout: float | None = None) -> Objective:
    """An objective of the table, with settings as in `dpo(beta=0.2)`; f1, as the task's own metrics define it (else
    SQuAD's); rouge, which is rouge:rougeL; a reward of REWARDS; `0.5*json + 0.5*length(most=80)`, a sum of rewards and
    metrics; or a plugin's: an objective, or a function, which is a reward.

    timeout: seconds that a plugin's function may take for a row, in a process of its own; None: in this one, any time.
    Raises MezoError for any other name, or a plugin that cannot be imported.
    """
    if terms := weighted(name):
        return added(name, [(weight, _addend(term, metrics, timeout)) for weight, term in terms])
    base = name.partition("(")[0]
    if base in OBJECTIVES:
        return _with_settings(OBJECTIVES[base], name)
    if base in REWARDS:
        return _reward(base, name)
    if name == "f1":
        return negative(name, DROP_F1 if DROP_F1.name in metrics else SQUAD_F1)
    family, colon, rest = name.partition(":")
    if family == "rouge" and (not colon or rest in ROUGE):
        return negative(name, ROUGE[rest or "rougeL"])
    installed = plugins.installed("objective")
    if (family and family != "rouge" and rest) or base in installed:
        return _plugin(name, timeout)
    known = [*OBJECTIVES, *REWARDS, *_OF_OUTPUTS, *installed]
    raise MezoError(f"unknown objective {name!r}{near(name, known)}, or a reward function, module:function")


def _reward(base: str, name: str) -> Reward:
    """A reward of this package, with its settings."""
    make, settings = REWARDS[base], plugins.split(name)[1]
    known = inspect.signature(make).parameters
    for key in settings:
        if key not in known:
            raise MezoError(f"reward {base!r} has no setting {key!r}{near(key, known)}")
    if make is JudgeReward:
        judge = JudgeReward(**settings)
        return reward(base, judge, f"reward:{base}", judge.told)
    made: Any = make(**settings)
    return reward(base, each(base, made), f"reward:{base}")


def _addend(name: str, metrics: Sequence[str], timeout: float | None) -> Reward:
    """A term of a sum. Raises MezoError for what is no reward."""
    found = objective_named(name, metrics, timeout=timeout)
    if isinstance(found, Reward):
        return found
    if not isinstance(found, NegativeMetric):
        raise MezoError(f"objective {name!r} is not of what is written, and cannot be added to a reward")
    metric = found.of

    def score(row: dict[str, Any], output: str) -> float:
        return metric.score(Example((), ((0,),), 0, references=tuple(row["references"]), fields=row), output)

    return reward_of(comparing(score), name)


def _with_settings(objective: LogprobObjective, name: str) -> LogprobObjective:
    settings = plugins.split(name)[1]
    known = {field.name for field in fields(objective)} - _NO_SETTINGS
    for key in settings:
        if key not in known:
            raise MezoError(f"objective {objective.name!r} has no setting {key!r}{near(key, sorted(known))}")
    return replace(objective, **settings) if settings else objective


def _plugin(name: str, timeout: float | None) -> Objective:
    found, settings = plugins.find("objective", name, {})
    if isinstance(found, type):
        return plugins.made(f"objective {name!r}", found, settings)
    if isinstance(found, Objective):
        return found
    if timeout is not None:
        return reward(name, RewardWorkers(name, timeout))
    return reward_of(partial(found, **settings) if settings else found, name)


def reported(objective: Objective) -> LogprobObjective:
    """The loss that is reported at evaluations: the objective itself, or the cross-entropy that stands
    for one whose value moves in jumps.
    """
    if objective.name == "accuracy":
        return OBJECTIVES["candidate-ce"]
    return objective if isinstance(objective, LogprobObjective) else OBJECTIVES["answer-ce"]


def told(objective: Objective) -> str | None:
    """What people should know of a run's objective at its end, such as what a judge cost."""
    return objective.told() if isinstance(objective, OutputObjective) else None


__all__ = [
    "DPO",
    "OBJECTIVES",
    "ORPO",
    "REWARDS",
    "AnswerCrossEntropy",
    "CandidateCrossEntropy",
    "LogprobObjective",
    "NegativeAccuracy",
    "NegativeMetric",
    "Objective",
    "OutputObjective",
    "Pairs",
    "PreferenceObjective",
    "Reward",
    "SimPO",
    "objective_named",
    "reported",
    "reward_of",
    "told",
]
