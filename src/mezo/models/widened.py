"""Compute a model's forward in a wider type than its own, one operation at a time.

Weights are widened as they are used, so this takes the memory of one more weight. For a few tokens: to see
structure that 16 bits would hide, and to read activations that do not depend on a processor's kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


@contextmanager
def widened(dtype: torch.dtype) -> Iterator[None]:
    """Inside the block every operation on floating-point numbers narrower than `dtype` is computed in it."""
    with _Operations(dtype), _Convolutions(dtype):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self._wide, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _wide(self, leaf: Any) -> Any:
        return _wide(leaf, self._dtype)


class _Convolutions(TorchFunctionMode):
    """Convolutions compare the types of input and weight before the dispatcher sees them."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv1d, torch.conv2d, torch.conv3d):
            args, kwargs = tree_map(lambda leaf: _wide(leaf, self._dtype), (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _wide(leaf: Any, dtype: torch.dtype) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.to(dtype) if _is_narrower(leaf.dtype, dtype) else leaf
    return dtype if isinstance(leaf, torch.dtype) and _is_narrower(leaf, dtype) else leaf


def _is_narrower(dtype: torch.dtype, than: torch.dtype) -> bool:
    return dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(than).eps
