"""What adapters of rank 1 add to a batch, in vLLM without a GPU: products of all of them at once.

vLLM gathers an adapter's factors for every token of a batch. Here x goes to its inner products with all adapters, those
with other rows' adapters are multiplied by 0, and one product adds what is left.
"""

from typing import Any

import torch


def own_places(indices: torch.Tensor, places: int, dtype: torch.dtype) -> torch.Tensor | None:
    """(tokens, places): 1 at each token's adapter; None if no token has one.

    indices: the place of each token's adapter, -1 for the base model.
    """
    if not len(indices) or int(indices.max()) < 0:
        return None
    return (indices.unsqueeze(1) == torch.arange(places, device=indices.device)).to(dtype)


def add_products(
    y: torch.Tensor,
    x: torch.Tensor,
    a: tuple[torch.Tensor, ...],
    b: tuple[torch.Tensor, ...],
    sizes: tuple[int, ...],
    own: torch.Tensor,
) -> None:
    """y <- y + each token's adapter, slice by slice.

    a, b: of each slice, (places, 1, 1, columns) and (places, 1, rows, 1). sizes: the slices' shares of y's columns. own: of
    `own_places`.
    """
    begin = 0
    for right, left, size in zip(a, b, sizes, strict=True):
        inner = (x @ right.view(len(right), -1).t()).mul_(own)
        y[:, begin : begin + size].addmm_(inner, left.view(len(left), -1)[:, :size])
        begin += size


def install(wrapper: Any) -> None:
    """Give the products to vLLM's PunicaWrapperCPU; what is no linear layer's adapter of rank 1 stays its own."""
    theirs, update = wrapper.add_lora_linear, wrapper.update_metadata

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        update(self, *args, **kwargs)
        self._mezo_own = {}

    def add_lora_linear(
        self: Any,
        y: Any,
        x: Any,
        a: Any,
        b: Any,
        scale: float,
        sizes: Any,
        *,
        buffer: Any = None,
        **kwargs: Any,
    ) -> None:
        known, indices = self.__dict__.setdefault("_mezo_own", {}), self.token_lora_indices
        flat = x.view(-1, x.shape[-1])
        thin = scale == 1 and buffer is None and all(factor.shape[-2] == 1 for factor in a)
        if not thin or len(indices) != len(flat) or y.dtype != x.dtype:
            theirs(self, y, x, a, b, scale, sizes, buffer=buffer, **kwargs)
            return
        key = (len(a[0]), x.dtype)  # made once for all layers of a pass
        if key not in known:
            known[key] = own_places(indices, *key)
        if known[key] is not None:
            add_products(y.view(-1, y.shape[-1]), flat, a, b, sizes, known[key])

    wrapper.add_lora_linear, wrapper.update_metadata = add_lora_linear, update_metadata
