"""A fingerprint of named tensors."""

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import torch

from mezo.models.offloaded import parameters_of
from mezo.models.quantised import contents, is_quantised


def fingerprint(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A fingerprint of tensors by name, shape, dtype and content, in the order of their names."""
    return fingerprint_sorted(sorted(named, key=lambda pair: pair[0]))


def fingerprint_of(model: Any) -> str:
    """The fingerprint of a model's weights: of its parameters, or of all bytes that quantised ones are made of."""
    return fingerprint(contents(model) if is_quantised(model) else parameters_of(model))


def fingerprint_sorted(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """`fingerprint` of tensors that come in the order of their names, one at a time."""
    digest = blake2b(digest_size=16)
    for name, tensor in named:
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {zlib.crc32(raw.data):08x}\n".encode())
    return digest.hexdigest()
