"""Whether a variant's settings can run, and what a reader of its numbers should know.

A plan may come from anywhere, so settings that run code or reach other machines are refused in it.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from mezo.ablation.binding.literal_values import facts_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util import plugins

if TYPE_CHECKING:
    from mezo.estimators.base import Estimator

_NOT_FROM_A_PLAN = ("trust_remote_code", "server", "server_args")
_RATES = "at the baseline's learning rate and epsilon; others may suit it better (set: gives them)"
_RATE = "at the baseline's learning rate; another may suit it better (set: gives it)"
_SLOW = "noise is drawn for 128 weights and one of them is moved: a step takes about a hundred times longer"
_CAUTIONS: dict[str, dict[Any, str]] = {
    # Tables 15 and 16 of the paper
    "tuning": dict.fromkeys(("full", "lora", "prefix", "head", "norms"), _RATES),
    "normalize_perturbations": {True: _RATES},  # docs/perturbations.md
    "estimator": dict.fromkeys(("one-point", "sign", "fzoo", "es"), _RATES),  # docs/estimators.md
    "optimizer": dict.fromkeys(("adam", "adam-rebuilt"), _RATE),
    "granularity": {"element": _SLOW},
}


def built_with(settings: dict[str, Any], config: MeZOConfig) -> MeZOConfig:
    """The baseline with `settings`. Raises MezoError if a plan may not set them, or they cannot run."""
    for name, value in settings.items():
        if getattr(config, name, ...) == value:
            continue
        if name in _NOT_FROM_A_PLAN:
            what = f"set {name}, which may run code or reach other machines"
            raise MezoError(f"a plan cannot {what}: give --{name.replace('_', '-')} yourself")
        if plugins.is_import(name, value):
            raise MezoError(f"a plan cannot have code run as its {name} {value!r}: give --{name} yourself")
    built = MeZOConfig.build(**{**config.model_dump(), **settings})
    _check_together(built)
    return built


def completed(settings: dict[str, Any], config: MeZOConfig) -> dict[str, Any]:
    """`settings` with the ones they need: pieces of noise exist in memory=regenerate alone."""
    memory = settings.get("memory", config.memory)
    if memory == "regenerate":
        return settings
    if settings.get("granularity") is not None and "memory" not in settings:
        return {"memory": "regenerate", **settings}
    if config.granularity is not None and "granularity" not in settings:
        return {**settings, "granularity": None}
    return settings


def caution(settings: dict[str, Any], config: MeZOConfig) -> str:
    """One line on settings that call for others, or ""."""
    changed = {name: value for name, value in settings.items() if getattr(config, name, None) != value}
    found = [_CAUTIONS[name].get(value, "") for name, value in changed.items() if name in _CAUTIONS]
    if {"learning_rate", "epsilon"} & changed.keys():
        found = [text for text in found if "learning rate" not in text]
    if "rounding" in changed and settings.get("dtype", config.dtype) == "float32":
        found.append("rounding is of 16-bit weights; the weights are float32")
    return "; ".join(dict.fromkeys(filter(None, found)))


def passes_of(config: MeZOConfig) -> float:
    """Forward passes of a step, as the mean over a run; with a slope for each layer, of the layers that are known."""
    from mezo import estimators

    layers = (facts_of(config.model).layers or 1) if config.blocks == "each" else 1
    estimator = estimators.build(config.model_copy(update={"layers_per_step": 1, "blocks": "all"}), _toy())
    return layers * mean_probes(estimator, config)


def mean_probes(estimator: "Estimator", config: MeZOConfig) -> float:
    """Probes of a step, as the mean over a run: the number of directions grows linearly, if it does."""
    return (probes_at(estimator, config, 0) + probes_at(estimator, config, config.num_steps - 1)) / 2


def probes_at(estimator: "Estimator", config: MeZOConfig, step: int) -> int:
    from mezo.algorithm import draw_of
    from mezo.build.schedule import directions_at

    return len(estimator.ask(draw_of(config.seed, step, directions_at(config, step)), estimator.init()))


def _check_together(config: MeZOConfig) -> None:
    """Raises MezoError for unknown names, and for settings that exclude each other."""
    from mezo import estimators
    from mezo.engines.in_place.modes import walk_for
    from mezo.objectives import objective_named
    from mezo.optimizers import OPTIMIZERS
    from mezo.util.registry import look_up

    look_up(OPTIMIZERS, config.optimizer, "optimizer")
    if config.objective != "auto" and (":" not in config.objective or config.objective.startswith("rouge:")):
        objective_named(config.objective)
    # the number of layers is known of the real model alone
    estimators.build(config.model_copy(update={"layers_per_step": 1}), _toy())
    walk_for(config.memory, _toy(), config.granularity, config.granularity_block)


@cache
def _toy() -> Any:
    """Weights of a few numbers, to build an estimator."""
    import torch

    from mezo.weights.weights import Weights

    return Weights([("layers.0.weight", torch.ones(2, 2))])
