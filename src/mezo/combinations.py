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
        Values("noise", ("gaussian", "rademacher")),
        "a worker writes whole perturbed weights",
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
