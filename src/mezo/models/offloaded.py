"""Models whose weights wait on a disk or in the memory of the host, until accelerate's hooks fetch those of a layer."""

from collections.abc import Iterator
from typing import Any

import torch

from mezo.errors import MezoError


def is_offloaded(model: Any) -> bool:
    """Whether some weights are elsewhere between forwards."""
    return any(_hook(module) is not None for module in model.modules())


def device_of(model: Any) -> torch.device:
    """Where inputs go: the model's device, or that on which its hooks compute."""
    if model.device.type != "meta":
        return model.device
    hooks = (_hook(module) for module in model.modules())
    found = next((hook.execution_device for hook in hooks if hook is not None), None)
    if found is None:
        return model.device
    return torch.device("cuda", found) if isinstance(found, int) else torch.device(found)


def parameters_of(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """`named_parameters`, each with its values: one that waits elsewhere is read when it is asked for."""
    places = {id(p): (m, k) for m in model.modules() for k, p in m._parameters.items() if p is not None}
    # which are tensors of their own where they wait
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, tensor in model.named_parameters():
        if tensor.is_meta and name in tied:
            continue
        module, key = places[id(tensor)]
        hook = _hook(module)
        yield name, hook.weights_map[key] if tensor.is_meta and hook is not None else tensor


def check_here(name: str, tensor: torch.Tensor, tuning: str) -> None:
    """Raises MezoError if a tensor that is to move waits elsewhere: what is fetched is a copy, which is thrown away."""
    if tensor.is_meta:
        raise MezoError(
            f"tuning={tuning!r} would move {name}, which is offloaded (accelerate's hooks fetch copies of it): use "
            "tuning=lora or prefix, or keep that layer in memory"
        )


def _hook(module: Any) -> Any:
    """The hook that fetches a module's weights."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        if getattr(each, "offload", False) and getattr(each, "weights_map", None) is not None:
            return each
    return None
