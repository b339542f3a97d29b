"""A GPU of fake tensors: shapes and devices without numbers, so that a step's host code runs where no GPU is.

What would make the host wait (a number read, an output whose shape depends on numbers, a copy from pageable memory)
raises; launches are counted. The noise kernels only count.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mezo import noise
from mezo.engines.perturb import matmul
from mezo.engines.transformers import selfcheck
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.lm_head import Head
from mezo.weights.weights import Weights

_NO_LAUNCH = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "lift_fresh"}


class Launches(TorchDispatchMode):
    """Counts operations on the GPU by name; refuses those for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.strict = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        out = func(*args, **options)
        name = func.overloadpacket.__name__
        if not isinstance(out, torch.Tensor):
            return out
        given = {a.device.type for a in args if isinstance(a, torch.Tensor)} - {out.device.type}
        if self.strict and name == "_to_copy" and given and not (out.is_cuda and options.get("non_blocking")):
            raise AssertionError(
                f"a copy from {given} to {out.device.type}: the host would wait for the device"
            )
        view = any(a is not None and not a.is_write for r in func._schema.returns if (a := r.alias_info))
        if out.is_cuda and not view and name not in _NO_LAUNCH:
            self.count[name] += 1
        return out


class Kernels:
    """In place of `mezo.noise.gpu`."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches

    def table_of(self, weights: Any, wheres: Any) -> Any:
        return weights

    def sum_of_squares(self, *given: Any) -> int:
        if self._launches.strict:
            raise AssertionError("a norm is read: the host would wait for the device")
        return 1

    def __getattr__(self, name: str) -> Any:
        def launched(*given: Any) -> None:
            self._launches.count[f"noise.{name}"] += 1

        return launched


def _get(x: torch.Tensor, index: Any) -> torch.Tensor:
    """x[index] by operations: torch's own asks for a guard that a build for CPUs has not."""
    keys = index if isinstance(index, tuple) else (index,)
    taken, d, by = sum(k is not None and k is not Ellipsis for k in keys), 0, {}
    hidden = x.dim() - taken
    for key in keys:
        if key is None:
            x, d = x.unsqueeze(d), d + 1
        elif key is Ellipsis:
            d += hidden
        elif isinstance(key, slice):
            start, stop, step = key.indices(x.shape[d])
            x, d = torch.ops.aten.slice(x, d, start, max(start, stop), step), d + 1
        elif isinstance(key, int):
            x = x.select(d, key)
        else:
            by[d], d = torch.as_tensor(key), d + 1
    return torch.ops.aten.index(x, [by.get(n) for n in range(max(by) + 1)]) if by else x


def _set(x: torch.Tensor, index: Any, value: Any) -> None:
    """x[index] = value; tensors in the index come without slices beside them, or behind a number."""
    keys = list(index) if isinstance(index, tuple) else [index]
    while keys and isinstance(keys[0], int):
        x = x.select(0, keys.pop(0))
    if any(isinstance(key, torch.Tensor) for key in keys):
        x.index_put_(keys, torch.as_tensor(value, device=x.device))
        return
    part = _get(x, tuple(keys)) if keys else x
    part.copy_(value) if isinstance(value, torch.Tensor) else part.fill_(value)


def _contiguous(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return x if x.is_contiguous() else torch.clone(x, memory_format=torch.contiguous_format)


class _Answers:
    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def numpy(self) -> np.ndarray:
        return np.linspace(-2, -1, self.shape[0] * self.shape[1]).reshape(self.shape)


@contextmanager
def fake_gpu(patch: pytest.MonkeyPatch, form: Form) -> Iterator[Launches]:
    """Inside the block, device "cuda" is a fake, and engines are of this form."""

    def result(self: Head, logits: Any) -> Any:
        assert self._logprobs is not None
        return _Answers((self._logprobs.shape[0], self._logprobs.shape[1]))

    def attention(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *more: Any, **options: Any
    ) -> torch.Tensor:
        launches.count["attention"] += 1
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    def copied(self: torch.Tensor, other: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        assert non_blocking or self.device == other.device or not launches.strict, (
            "it would wait for the device"
        )
        launches.count["copy_"] += 1
        return self

    launches = Launches()
    patch.setattr(torch.Tensor, "copy_", copied)
    patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    patch.setattr(noise, "_loaded", {"cuda": Kernels(launches), "cpu": Kernels(launches)})
    patch.setattr(selfcheck, "find_form", lambda engine, probes: form)
    patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    patch.setattr(torch.Tensor, "data_ptr", lambda self: id(self))
    patch.setattr(torch.Tensor, "__getitem__", _get)
    patch.setattr(torch.Tensor, "__setitem__", _set)
    patch.setattr(torch.Tensor, "contiguous", _contiguous)
    patch.setattr(torch._C, "DisableTorchFunction", nullcontext)  # a fake needs it
    patch.setattr(Head, "result", result)
    patch.setattr(
        matmul, "has_wide_products", lambda x, weight: x.is_cuda and x.dtype == weight.dtype == torch.bfloat16
    )
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(launches)
        yield launches


def on_fake(model: torch.nn.Module, weights: Weights) -> Weights:
    """The model gets fakes on the GPU for all its tensors, tied ones tied; its weights. Inside `fake_gpu`."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in made:
                    fake: Any = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    is_parameter = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = (
                        torch.nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                    )
                if tensor is not None:
                    held[name] = made[id(tensor)]
    named = ((t.name, made[id(t.tensor)]) for t in weights.tunables)
    return Weights(named, kind=weights.kind, rank=weights.rank)
