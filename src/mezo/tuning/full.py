"""All parameters, or those that `train` names."""

from typing import Any

from mezo.config import MeZOConfig
from mezo.models.quantised import check_plain
from mezo.tuning.select import chosen
from mezo.weights.tunable import canonical


def full(model: Any, config: MeZOConfig) -> Any:
    """Every parameter of the model, or those whose names contain a match of the config's `train` patterns.

    Tied weights are one tensor under one name, the first.

    Raises: MezoError if a pattern matches no name.
    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_pretrained("my-model")
        >>> tuned = full(model, MeZOConfig(train=("layers.1",)))
        >>> sum(p.requires_grad for p in tuned.parameters())
        9
    """
    named = {canonical(name): p for name, p in model.named_parameters()}
    first = {id(p): name for name, p in named.items()}
    every = {canonical(name): first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    tied = {alias: name for alias, name in every.items() if alias != name}
    model.requires_grad_(False)
    names = chosen(named, config.train, tied=tied)
    check_plain(((name, named[name]) for name in names), "full")
    for name in names:
        named[name].requires_grad_(True)
    return model
