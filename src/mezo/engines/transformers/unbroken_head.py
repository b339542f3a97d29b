"""A head that reads the states of last tokens from one block of memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unbroken_head(model: Any) -> Iterator[None]:
    """Inside the block the head reads the last tokens' states as a block of memory.

    Cut out of a longer prompt they are not, and in 16 bits torch then copies the head's weight for every row (the whole step
    took four times as long: SmolLM2-135M in bfloat16, 16 rows).
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()
