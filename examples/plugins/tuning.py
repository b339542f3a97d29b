"""A tuning mode: the gains of the normalisation layers alone. --tuning tuning.py:gains"""

from typing import Any

from mezo import MeZOConfig


def gains(model: Any, config: MeZOConfig, ending: str = "norm.weight") -> Any:
    """The model, in which every tensor whose name ends so is to be tuned."""
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(ending))
    return model
