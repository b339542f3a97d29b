"""All parameters, or those that `train` names."""

from typing import Any

from mezo.config import MeZOConfig
from mezo.tuning.select import chosen
from mezo.weights.tunable import canonical


def full(model: Any, config: MeZOConfig) -> Any:
    """Every parameter of the model, or those whose names the config's `train` patterns are found in.

    Tied weights are one tensor under one name, the first.
    Raises MezoError for a pattern that names nothing.
    """
    named = {canonical(name): p for name, p in model.named_parameters()}
    first = {id(p): name for name, p in named.items()}
    every = {canonical(name): first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    tied = {alias: name for alias, name in every.items() if alias != name}
    model.requires_grad_(False)
    for name in chosen(named, config.train, tied=tied):
        named[name].requires_grad_(True)
    return model
