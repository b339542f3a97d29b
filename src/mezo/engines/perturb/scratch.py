"""Reusable memory for perturbed weights: a few buffers, bounded, never theta."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Perturbed weights are written in row blocks of this many elements for each sign: 4 MB in float32, so
# that a block is still in the cache when the matrix product reads it, and a vocabulary-sized head
# costs no more memory than any other layer. A GPU, whose launches cost, takes four times as many.
BLOCK_ELEMENTS = 2**20


class Scratch:
    """A stack of flat buffers: `take` hands one out for the length of a with block."""

    def __init__(self) -> None:
        self._free: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}

    @contextmanager
    def take(self, shape: tuple[int, ...], like: torch.Tensor) -> Iterator[torch.Tensor]:
        """An uninitialised tensor of `shape`, on the device and of the dtype of `like`."""
        size = 1
        for n in shape:
            size *= n
        free = self._free.setdefault((like.device, like.dtype), [])
        fitting = [i for i, b in enumerate(free) if b.numel() >= size]
        if fitting:
            buffer = free.pop(min(fitting, key=lambda i: free[i].numel()))
        else:
            if free:
                free.pop()  # replace a buffer that is too small instead of keeping both
            buffer = torch.empty(size, dtype=like.dtype, device=like.device)
        try:
            yield buffer[:size].view(shape)
        finally:
            free.append(buffer)
