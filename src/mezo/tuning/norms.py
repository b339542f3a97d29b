"""The gains and biases of the normalisation layers, as peft's LN tuning (Zhao et al. 2023)."""

from collections.abc import Collection
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models.names import public_name
from mezo.models.offloaded import check_here
from mezo.models.quantised import check_plain
from mezo.tuning.peft_warnings import quiet_peft
from mezo.tuning.select import chosen, is_target
from mezo.weights.tunable import canonical


def norms(model: Any, config: MeZOConfig) -> Any:
    """The gains and biases of all normalisation layers, or of those that `train` patterns name.

    Each layer gets a copy that moves, of the model's dtype: in 16 bits its updates are rounded as all weights' are.

    Raises: MezoError for a model without such layers, or with layers whose weights are also other layers'.
    Reference: Zhao et al. 2023, arXiv:2312.11420.
    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_pretrained("my-model")
        >>> norms(model, MeZOConfig()).peft_config["default"].target_modules
        ['input_layernorm', 'norm', 'post_attention_layernorm']
    """
    from peft import LNTuningConfig, get_peft_model

    found = norm_layers(model)
    if not found:
        raise MezoError(
            f"tuning='norms': this {model.config.model_type!r} model has no normalisation layers with a gain: use "
            "tuning=lora or tuning=full"
        )
    names = [
        f"{layer}.{key}" for layer, m in found.items() for key, p in m._parameters.items() if p is not None
    ]
    kept = set(chosen(names, config.train, of="norm"))
    own = {
        layer: module
        for layer, module in found.items()
        if any(f"{layer}.{key}" in kept for key in module._parameters)
    }
    _check_own(model, own)
    settings = LNTuningConfig(target_modules=norm_targets(model, own))
    with quiet_peft():
        tuned = get_peft_model(model, settings)
    # what others can load; peft would write the folder it came from, and shorten the names in an order of its own
    settings.base_model_name_or_path = public_name(config.model)
    settings.target_modules = sorted(settings.target_modules or ())
    for name, tensor in tuned.named_parameters():
        tensor.requires_grad_(
            tensor.requires_grad and canonical(name).replace(".ln_tuning_layers.", ".") in kept
        )
    return tuned.eval()


def norm_layers(model: Any) -> dict[str, nn.Module]:
    """The normalisation layers with a gain for each feature, by name. Batch norms are left out: their statistics move."""
    return {
        name: module
        for name, module in model.named_modules()
        if any("Norm" in kind.__name__ for kind in type(module).__mro__)  # subclasses go by their parents
        and not isinstance(module, _NormBase)
        and getattr(module._parameters.get("weight"), "ndim", 0) == 1
        and not module._modules
    }


def norm_targets(model: Any, layers: Collection[str]) -> list[str]:
    """What peft finds exactly these layers by: the last parts of their names, or the names."""
    for targets in (sorted({name.rpartition(".")[2] for name in layers}), sorted(layers)):
        if {name for name, _ in model.named_modules() if is_target(name, targets)} == set(layers):
            return targets
    raise MezoError(
        "the name of a norm ends in that of another one, and peft would put an adapter on both: tune all norms, or use tuning=full with train"
    )


def _check_own(model: Any, layers: dict[str, nn.Module]) -> None:
    """Raises MezoError for weights that cannot be copied and moved, or that would stay where others read them."""
    named = [
        (f"{name}.{k}", p) for name, m in layers.items() for k, p in m._parameters.items() if p is not None
    ]
    for name, tensor in named:
        check_here(name, tensor, "norms")
    check_plain(named, "norms")
    places: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(tensor), []).append(name)
    for name, tensor in named:
        if others := [other for other in places[id(tensor)] if other != name]:
            raise MezoError(
                f"tuning='norms': {name} is the same tensor as {others[0]}, and an adapter would part them: use "
                "tuning=full with train"
            )
