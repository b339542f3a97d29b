"""What goes with what: one table, from which the errors and a page of the reference are made."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mezo.config import MeZOConfig
from mezo.errors import MezoError


@dataclass(frozen=True)
class Values:
    """Some values of a setting; with `but`, all values except these."""

    setting: str
    names: tuple[Any, ...]
    but: bool = False

    def hold(self, config: MeZOConfig) -> bool:
        """Whether the config's value is one of these."""
        return (getattr(config, self.setting) in self.names) != self.but

    def __str__(self) -> str:
        return f"{self.setting}{' other than ' if self.but else '='}{_listed(self.names)}"


@dataclass(frozen=True)
class Rule:
    """Where all of `when` hold, the config needs `needs`."""

    when: tuple[Values, ...]
    needs: Values
    why: str


_SERVED = Values("engine", ("transformers",), but=True)
_ALL_WEIGHTS = Values("tuning", ("lora",), but=True)
_CUT = (Values("engine", ("transformers",)), Values("tensor_parallel", (1,), but=True))
_CONE = (Values("estimator", ("cone",)),)
_BY_ROW = (Values("row_directions", (1,), but=True),)
_GROUPS = (Values("groups", (1,), but=True),)
_AUTO = (Values("learning_rate", ("auto",)),)
_RANK_ONE = (Values("noise", ("rank-one",)),)
_MUON = (Values("optimizer", ("muon",)),)
_LEARNED = (Values("layer_scaling", ("learned",)),)

_PROBED = (Values("start", ("linear-probe",)),)

RULES = (
    Rule(
        _PROBED,
        Values("tuning", ("full", "lora", "head")),
        "the label words' rows have to be part of what is saved",
    ),
    Rule(_PROBED, Values("engine", ("transformers",)), "a serving engine does not show what its head reads"),
    Rule(_PROBED, Values("tensor_parallel", (1,)), "a process has only a part of the head"),
    Rule((_SERVED,), Values("tuning", ("lora", "full")), "a serving engine takes adapters, or all weights"),
    Rule((Values("engine", ("http",)),), Values("tuning", ("lora",)), "running servers take adapters alone"),
    Rule((Values("engine", ("http",)),), Values("tensor_parallel", (1,)), "running servers have their own"),
    Rule((_SERVED,), Values("activation_cache_mb", (0,)), "the layers are in the engine"),
    Rule(
        (_SERVED, Values("tuning", ("lora",))),
        Values("memory", ("materialize",)),
        "an adapter's probes are adapters of their own",
    ),
    Rule(
        (_SERVED, _ALL_WEIGHTS),
        Values("memory", ("materialize", "regenerate")),
        "a worker keeps theta once more, or walks to a probe and back",
    ),
    Rule(
        (_SERVED, _ALL_WEIGHTS),
        Values("noise", ("gaussian", "rademacher", "rank-one")),
        "a worker has tensors in pieces, whose sums have to be those of the whole tensors",
    ),
    Rule(
        (_SERVED, _ALL_WEIGHTS),
        Values("layer_scaling", ("none",)),
        "the norms of all weights are in the engine",
    ),
    *(
        Rule(_CUT, needs, "a process has only a part of each matrix")
        for needs in (
            Values("tuning", ("full",)),
            Values("memory", ("materialize",)),
            Values("optimizer", ("sgd",)),
            Values("noise", ("gaussian", "rademacher")),
            Values("blocks", ("all",)),
            Values("layer_scaling", ("none",)),
            Values("activation_cache_mb", (0,)),
            Values("estimator", ("cone",), but=True),
        )
    ),
    Rule(_CONE, Values("noise", ("gaussian", "rademacher")), "the mean gradient is not of low rank"),
    Rule(
        _CONE,
        Values("optimizer", ("momentum-rebuilt", "adam-rebuilt"), but=True),
        "the mean gradient of past steps is not kept",
    ),
    Rule(
        _CONE, Values("normalize_perturbations", (False,)), "its directions are all of about the same length"
    ),
    Rule(_BY_ROW, Values("num_directions", (1,)), "each part of the batch has one direction"),
    Rule(_BY_ROW, Values("final_directions", (None,)), "each part of the batch has one direction"),
    Rule(
        _BY_ROW,
        Values("estimator", ("fzoo", "cone", "es"), but=True),
        "it compares directions on the same rows, or turns to them",
    ),
    Rule(
        (Values("scores", ("z-score",), but=True),),
        Values("estimator", ("es",)),
        "other estimators have no population",
    ),
    Rule(_GROUPS, Values("scores", ("group",)), "losses of other rows are not on one scale"),
    Rule(_GROUPS, Values("final_directions", (None,)), "each group has as many directions"),
    Rule(
        _RANK_ONE,
        Values("optimizer", ("momentum-rebuilt",), but=True),
        "a sum is exact for the directions of a step, not for those of all remembered steps at once",
    ),
    Rule(
        _MUON,
        Values("noise", ("low-rank", "rank-one"), but=True),
        "a matrix is made orthogonal in one basis, or as it is",
    ),
    Rule(
        (*_MUON, _SERVED),
        Values("tuning", ("lora",)),
        "a worker has no momentum of thin matrices",
    ),
    Rule(_LEARNED, Values("estimator", ("two-point",)), "blocks are measured by both signs of a direction"),
    *(
        Rule(_LEARNED, needs, "at first a step moves one block, on all rows, by what is measured along it")
        for needs in (
            Values("blocks", ("all",)),
            Values("row_directions", (1,)),
            Values("normalize_perturbations", (False,)),
        )
    ),
    Rule(_AUTO, Values("estimator", ("two-point",)), "the rate is measured by both signs of a direction"),
    Rule(_AUTO, Values("optimizer", ("sgd", "momentum")), "the curvature is that of plain steps along z"),
    Rule(_AUTO, Values("layer_scaling", ("none",)), "a step goes along what it has probed"),
    Rule(
        _AUTO,
        Values("normalize_perturbations", (False,)),
        "the rate is one for directions that are not normalised",
    ),
    Rule(
        (Values("samples", (1,), but=True),),
        Values("temperature", (0.0,), but=True),
        "the likeliest tokens are the same in every output",
    ),
    Rule(
        (Values("granularity", (None,), but=True),),
        Values("memory", ("regenerate",)),
        "it says how much noise the in-place walk holds",
    ),
)


def broken(config: MeZOConfig) -> Iterator[Rule]:
    """The rules that the config breaks."""
    for rule in RULES:
        if all(values.hold(config) for values in rule.when) and not rule.needs.hold(config):
            yield rule


_EPSILONS = {"lora": 1e-2, "norms": 1e-2, "prefix": 1e-1}  # all else: that of whole weights


def recommended(config: MeZOConfig) -> MeZOConfig:
    """The config for one who chose no learning rate: it is measured and falls over the run, which has a head start.

    What was chosen stays; where the rest does not allow a measured rate, all stays. Epsilon is that of what is tuned: with less,
    the curvature that the rate is measured by is lost in the rounding of 16-bit losses.
    """
    if "learning_rate" in config.model_fields_set:
        return config
    whole = 1e-3 if config.dtype == "float32" else 5e-3
    advice = {"schedule": "linear", "start": "auto", "epsilon": _EPSILONS.get(config.tuning, whole)}
    unset = {name: value for name, value in advice.items() if name not in config.model_fields_set}
    measured = config.model_copy(update={"learning_rate": "auto", **unset})
    return config if any(broken(measured)) else measured


def check_combination(config: MeZOConfig) -> None:
    """Compare the config with the table.

    Raises:
        MezoError: two settings do not go together; it names both and what would.
    """
    for rule in broken(config):
        setting = rule.needs.setting
        here = " and ".join(f"{v.setting}={getattr(config, v.setting)!r}" for v in rule.when)
        raise MezoError(
            f"{here} needs {rule.needs}, found {setting}={getattr(config, setting)!r}: {rule.why}; change one of them"
        )


def _listed(names: tuple[Any, ...]) -> str:
    return " or ".join(str(name) for name in names)
