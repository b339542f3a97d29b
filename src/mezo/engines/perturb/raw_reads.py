"""See every operation that reads a tuned tensor's own memory, however deep inside the model it is.

`RawReads` sees what Python asks of torch, including `numpy()`, `tolist()` and `data_ptr()`, at about a microsecond an
operation, so it can stay on. `Dispatched` sees what torch's dispatcher is given, inside C++ functions too, at three
times that cost; it is on while the engine checks itself.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mezo.errors import MezoError
from mezo.weights.weights import Weights

# these take a tensor for its shape, dtype and device alone
_METADATA_ONLY = re.compile(r"(aten::)?(new_\w+|(empty|zeros|ones|full|rand|randn|randint)_like)")
_LIKE_THE_SECOND = frozenset(("expand_as", "view_as", "reshape_as", "type_as"))  # and read the first
# these give Python the values, or the memory that they are in
_WAYS_OUT = re.compile(
    r"numpy|tolist|item|(const_)?data_ptr|(untyped_|_typed_)?storage|equal|allclose|is_nonzero"
    r"|__(array|dlpack|float|int|bool|index|contains|complex|reduce_ex)__"
)
_WRITES_NOTHING = frozenset(("requires_grad_", "detach_", "rename_", "share_memory_", "retain_grad_"))


class _Knowing(threading.local):
    depth = 0


_knowing = _Knowing()


@contextmanager
def knowing() -> Iterator[None]:
    """Inside the block this thread reads tuned tensors on purpose: no watch records it."""
    _knowing.depth += 1
    try:
        with torch._C.DisableTorchFunction():
            yield
    finally:
        _knowing.depth -= 1


F = TypeVar("F", bound=Callable[..., Any])


def unwatched(function: F) -> F:
    """The function, inside of `knowing`."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with knowing():
            return function(*args, **kwargs)

    return inside  # type: ignore[return-value]


class Memories:
    """Which tuned tensor a piece of memory belongs to. A storage may hold several: views of a flat buffer."""

    def __init__(self, weights: Weights):
        self._of: dict[int, list[tuple[int, int, str]]] = {}  # storage -> (first byte, end, name)
        for t in weights.tunables:
            data = t.tensor.detach()
            begin = data.data_ptr()
            span = (begin, begin + data.numel() * data.element_size(), t.name)
            self._of.setdefault(data.untyped_storage()._cdata, []).append(span)

    def names(self, tensor: torch.Tensor) -> Iterable[str]:
        """The tuned tensors that share memory with this one."""
        spans = self._of.get(tensor.untyped_storage()._cdata)
        if spans is None:
            return ()
        if len(spans) == 1:
            return (spans[0][2],)
        begin = tensor.data_ptr()
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n) + 1
        end = begin + reach * tensor.element_size()
        return [name for first, last, name in spans if first < end and begin < last]

    def shares(self, result: Any, tensor: torch.Tensor) -> bool:
        """Whether an operation only handed the tensor's memory on: its result is a view."""
        return (
            isinstance(result, torch.Tensor)
            and result.device.type == tensor.device.type
            and result.untyped_storage()._cdata == tensor.untyped_storage()._cdata
        )


class RawReads(TorchFunctionMode):
    """While active, `read` collects the names of tuned tensors whose memory reaches a computation.

    Views and shapes are not reads. Writing into a tuned tensor is a MezoError, before it happens. ignoring: names
    whose reads need no watching.
    """

    def __init__(self, weights: Weights, *, ignoring: Iterable[str] = ()):
        super().__init__()
        self._memories = Memories(weights)
        self._ignored = frozenset(ignoring)
        self.read: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _knowing.depth:
            return func(*args, **(kwargs or {}))
        if (written := _written(getattr(func, "__name__", ""), args, kwargs)) is not None:
            with torch._C.DisableTorchFunction():
                self._check_own(func, written)
        result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self._look(func, args, kwargs, result)
        return result

    def _look(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        second = getattr(func, "__name__", "") in _LIKE_THE_SECOND
        for leaf in args[:1] if second else (*args, *kwargs.values()) if kwargs else args:
            if isinstance(leaf, torch.Tensor):
                self._note(func, leaf, result)
            elif isinstance(leaf, (list, tuple, dict)):
                for inner in tree_leaves(leaf):
                    if isinstance(inner, torch.Tensor):
                        self._note(func, inner, result)

    def _check_own(self, func: Any, written: torch.Tensor) -> None:
        """theta must be the same before and after a loss: nothing would put back what a forward made of it."""
        with contextlib.suppress(RuntimeError, NotImplementedError):
            for name in self._memories.names(written) if not written.is_meta else ():
                raise MezoError(
                    f"the loss writes into the tuned tensor {name} ({func.__name__}): a loss must leave the weights as they "
                    "are; write after the step"
                )

    def _note(self, func: Any, leaf: torch.Tensor, result: Any) -> None:
        if leaf.device.type == "meta":
            return
        try:
            names = self._memories.names(leaf)
            if names and self._reads(getattr(func, "__name__", ""), leaf, result):
                self.read.update(name for name in names if name not in self._ignored)
        except (RuntimeError, NotImplementedError):  # sparse and wrapped tensors have no storage of their own
            return

    def _reads(self, name: str, leaf: torch.Tensor, result: Any) -> bool:
        if _WAYS_OUT.fullmatch(name):
            return True
        if _METADATA_ONLY.fullmatch(name) or name in _WRITES_NOTHING:
            return False
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            return True  # in place: an operand is read, or theta itself is written
        parts = [r for r in (result if isinstance(result, (list, tuple)) else [result]) if _is_tensor(r)]
        if all(self._memories.shares(r, leaf) for r in parts):  # views, or shapes and the like: no tensor
            return bool(parts) and name.startswith("__i") and name.endswith("__")
        return True


def _written(name: str, args: Any, kwargs: Any) -> torch.Tensor | None:
    """The tensor that an operation writes into; None for one that makes a new one."""
    if kwargs and _is_tensor(kwargs.get("out")):
        return kwargs["out"]
    in_place = (
        name.endswith("_") if not name.endswith("__") else name.startswith("__i") or name == "__setitem__"
    )
    in_place = in_place and name not in _WRITES_NOTHING and name not in ("__int__", "__index__", "__invert__")
    return args[0] if in_place and args and _is_tensor(args[0]) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


class Dispatched(TorchDispatchMode):
    """The same names, from the operations that torch's dispatcher is given."""

    def __init__(self, weights: Weights):
        super().__init__()
        self._memories = Memories(weights)
        self.read: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        # an in-place or out= operation returns an alias, too, but one that it has written
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not _knowing.depth and not is_view and not _METADATA_ONLY.fullmatch(func._schema.name):
            with torch._C.DisableTorchFunction():
                for leaf in tree_leaves((args, kwargs or {})):
                    if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                        self.read.update(self._memories.names(leaf))
        return func(*args, **(kwargs or {}))
