"""See every operation that reads a tuned tensor raw, however deep inside the model it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mezo.weights import Weights

# these take a tensor for its shape, dtype and device alone
_METADATA_ONLY = {
    f"aten::{new}" for new in ("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like")
}


_knowing = False


@contextmanager
def knowing() -> Iterator[None]:
    """Inside the block tuned tensors are read by who adds the perturbation itself: no `Watch` minds."""
    global _knowing
    before, _knowing = _knowing, True
    try:
        yield
    finally:
        _knowing = before


class Watch(TorchDispatchMode):
    """While active, `read_raw` collects the names of tuned tensors that reach a computation.

    Taking a view is not reading: only operations that are given the tensor's memory and make
    something new of it count.
    """

    def __init__(self, weights: Weights):
        super().__init__()
        self._names = {t.tensor.untyped_storage().data_ptr(): t.name for t in weights.tunables}
        self.read_raw: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_view = any(r.alias_info is not None for r in func._schema.returns)
        if not _knowing and not is_view and func._schema.name not in _METADATA_ONLY:
            for leaf in tree_leaves((args, kwargs or {})):
                if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                    name = self._names.get(leaf.untyped_storage().data_ptr())
                    if name is not None:
                        self.read_raw.add(name)
        return func(*args, **(kwargs or {}))
