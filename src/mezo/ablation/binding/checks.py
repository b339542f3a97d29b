"""Whether a variant's settings can run: a plan is text from elsewhere, so what would run code, or ask
other machines, is refused."""

from functools import cache
from typing import Any

from mezo.ablation.binding.model_facts import facts_of
from mezo.ablation.binding.part import Refused
from mezo.config import MeZOConfig, is_import
from mezo.errors import MezoError

_YOURS = ("trust_remote_code", "server", "server_args")


def problem_of(settings: dict[str, Any], config: MeZOConfig) -> tuple[str, MeZOConfig | None]:
    """("", the baseline with `settings`), or (what is wrong with them, None).

    Raises Refused for settings that a plan may not have.
    """
    for name, value in settings.items():
        _check_harmless(name, value, config)
    try:
        built = MeZOConfig.build(**{**config.model_dump(), **settings})
        _check_together(built)
    except MezoError as error:
        return str(error), None
    return "", built


def completed(settings: dict[str, Any], config: MeZOConfig) -> dict[str, Any]:
    """With what they need beside them: pieces of noise are held by memory=regenerate alone."""
    memory = settings.get("memory", config.memory)
    if memory == "regenerate":
        return settings
    if settings.get("granularity") is not None and "memory" not in settings:
        return {"memory": "regenerate", **settings}
    if config.granularity is not None and "granularity" not in settings:
        return {**settings, "granularity": None}
    return settings


def _check_harmless(name: str, value: Any, config: MeZOConfig) -> None:
    if getattr(config, name, ...) == value:
        return
    if name in _YOURS:
        option = f"--{name.replace('_', '-')}"
        raise Refused(
            f"a plan cannot set {name}, which may run code or reach other machines: give {option} yourself"
        )
    if is_import(name, value):
        raise Refused(f"a plan cannot have code run as its {name} {value!r}: give --{name} yourself")


def _check_together(config: MeZOConfig) -> None:
    """Raises MezoError for names that no table has, and for settings that exclude each other."""
    from mezo import estimators
    from mezo.engines.modes import walk_for
    from mezo.objectives import objective_named
    from mezo.optimizers import OPTIMIZERS
    from mezo.registry import look_up

    look_up(OPTIMIZERS, config.optimizer, "optimizer")
    if config.objective != "auto" and (":" not in config.objective or config.objective.startswith("rouge:")):
        objective_named(config.objective)
    # how many layers there are is known of the real model alone
    estimators.build(config.model_copy(update={"layers_per_step": 1}), _toy())
    walk_for(config.memory, _toy(), config.granularity, config.granularity_block)


def passes_of(config: MeZOConfig) -> float:
    """Forward passes of a step, in the mean over a run; with a slope for each layer, of as many as are known of."""
    from mezo import estimators
    from mezo.algorithm import draw_of
    from mezo.setup import directions_at

    layers = (facts_of(config.model).layers or 1) if config.blocks == "each" else 1
    estimator = estimators.build(config.model_copy(update={"layers_per_step": 1, "blocks": "all"}), _toy())
    ends = (0, config.num_steps - 1)
    draws = [draw_of(config.seed, step, directions_at(config, step)) for step in ends]
    passes = [len(estimator.ask(draw, estimator.init())) for draw in draws]
    return layers * sum(passes) / len(passes)


@cache
def _toy() -> Any:
    """Weights of a few numbers, to make an estimator of."""
    import torch

    from mezo.weights import Weights

    return Weights([("layers.0.weight", torch.ones(2, 2))])
