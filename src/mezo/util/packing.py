"""A state made of tensors, numbers, texts, lists and dicts, as JSON beside named tensors; no pickle."""

from typing import Any

import torch

_TENSOR, _TUPLE = "__tensor__", "__tuple__"


def pack(value: Any, tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    """`value` as JSON values; its tensors are put into `tensors` under names that begin with `prefix`.

    Raises TypeError for anything that cannot be read back as it was.
    """
    if isinstance(value, torch.Tensor):
        name = next((name for name, tensor in tensors.items() if tensor is value), f"{prefix}{len(tensors)}")
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        if any(not isinstance(key, str) or key in (_TENSOR, _TUPLE) for key in value):
            raise TypeError(f"expected texts as the keys of a state, found {sorted(map(repr, value))}")
        return {key: pack(item, tensors, prefix) for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [pack(item, tensors, prefix) for item in value]}
    if isinstance(value, list):
        return [pack(item, tensors, prefix) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"expected a state of tensors, numbers, texts, lists and dicts, found {type(value).__name__}"
    )


def unpack(packed: Any, tensors: Any) -> Any:
    """What `pack` was given. tensors: by name, as `tensors[name]`; KeyError if one is missing."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if packed.keys() == {_TENSOR}:
        return tensors[packed[_TENSOR]]
    if packed.keys() == {_TUPLE}:
        return tuple(unpack(item, tensors) for item in packed[_TUPLE])
    return {key: unpack(item, tensors) for key, item in packed.items()}
