"""A LoRA layer of peft's, in the fewest passes over memory.

peft casts a layer's input to the adapter's dtype for each layer that reads it, and allocates for every operation.
Here the input that q and v share is cast once, and the product is added into the base layer's result.
"""

from typing import Any

import torch
from torch import nn


def is_plain_lora(module: Any) -> bool:
    """Whether `LoraForward` computes what this module does: one active adapter, nothing special to it."""
    kind = type(module)
    if kind.__name__ != "Linear" or kind.__module__ != "peft.tuners.lora.layer":
        return False
    active = list(module.active_adapters)
    return (
        len(active) == 1
        and active[0] in module.lora_A
        and active[0] not in module.lora_variant
        and isinstance(module.lora_dropout[active[0]], nn.Identity)
        and module.lora_A[active[0]].bias is None
        and not module.merged
        and not module.disable_adapters
    )


class LoraForward:
    """The forward of a layer; `cast` is shared by all layers of a model."""

    def __init__(self, module: Any, cast: "LastCast"):
        name = next(iter(module.active_adapters))
        self.base, self.cast, self.scaling = module.base_layer, cast, module.scaling[name]
        self.a, self.b = module.lora_A[name], module.lora_B[name]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        result = self.base(x)  # of its own memory: no one else sees it before it is returned
        product = self.b(self.a(self.cast(x, self.a.weight.dtype)))
        return torch.add(result, product, alpha=self.scaling, out=result)


class LastCast:
    """The last tensor that was cast, and what became of it."""

    def __init__(self) -> None:
        self._x: torch.Tensor | None = None
        self._cast: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if x.dtype == dtype:
            return x
        if self._cast is None or self._x is not x or self._cast.dtype != dtype:
            self._x, self._cast = x, x.to(dtype)
        return self._cast

    def forget(self) -> None:
        self._x = self._cast = None
