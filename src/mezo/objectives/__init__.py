"""The objectives by name. A new one is one file and one line here."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

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
from mezo.objectives.reward import Reward, reward_of
from mezo.objectives.simpo import SimPO
from mezo.util import plugins

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


def objective_named(name: str, metrics: Sequence[str] = ()) -> Objective:
    """An objective of the table, with settings as in `dpo(beta=0.2)`; f1, as the task's own metrics define it (else
    SQuAD's); rouge, which is rouge:rougeL; or a plugin's: an objective, or a function, which is a reward.

    Raises MezoError for any other name, or a plugin that cannot be imported.
    """
    base = name.partition("(")[0]
    if base in OBJECTIVES:
        return _with_settings(OBJECTIVES[base], name)
    if name == "f1":
        return negative(name, DROP_F1 if DROP_F1.name in metrics else SQUAD_F1)
    family, colon, rest = name.partition(":")
    if family == "rouge" and (not colon or rest in ROUGE):
        return negative(name, ROUGE[rest or "rougeL"])
    installed = plugins.installed("objective")
    if (family and family != "rouge" and rest) or name.partition("(")[0] in installed:
        return _plugin(name)
    raise MezoError(
        f"unknown objective {name!r}{near(name, [*OBJECTIVES, *_OF_OUTPUTS, *installed])}, or a reward function, "
        "module:function"
    )


def _with_settings(objective: LogprobObjective, name: str) -> LogprobObjective:
    settings = plugins.split(name)[1]
    known = {field.name for field in fields(objective)} - _NO_SETTINGS
    for key in settings:
        if key not in known:
            raise MezoError(f"objective {objective.name!r} has no setting {key!r}{near(key, sorted(known))}")
    return replace(objective, **settings) if settings else objective


def _plugin(name: str) -> Objective:
    found, settings = plugins.find("objective", name, {})
    if isinstance(found, type):
        return plugins.made(f"objective {name!r}", found, settings)
    if isinstance(found, Objective):
        return found
    return reward_of(partial(found, **settings) if settings else found, name)


def reported(objective: Objective) -> LogprobObjective:
    """The loss that is reported at evaluations: the objective itself, or the cross-entropy that stands
    for one whose value moves in jumps.
    """
    if objective.name == "accuracy":
        return OBJECTIVES["candidate-ce"]
    return objective if isinstance(objective, LogprobObjective) else OBJECTIVES["answer-ce"]


__all__ = [
    "DPO",
    "OBJECTIVES",
    "ORPO",
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
]
