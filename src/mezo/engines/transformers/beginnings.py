"""What all prompts of a batch begin with: a system prompt, a template, solved examples. Its keys and values are computed
once, and each row goes on behind a copy of them.
"""

from collections.abc import Sequence
from typing import Any

from mezo.engines.transformers.selfcheck import in_any_layer
from mezo.tuning.prefix_keys import prefix_of

LEAST = 16  # tokens that are worth a pass of their own
TRIED = ((5, 6, 7, 8, 9, 10), (7, 5, 6))  # prompts of a trial; one of them is padded
BEGUN = (*TRIED[0], *TRIED[0][::-1], *TRIED[1], 8)  # what they begin with, where that is tried
_WINDOWS = (
    "sliding_window",
    "attention_chunk_size",
    "local_attention",
    "window_size",
    "attention_window_size",
)


def in_common(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, of which each has at least one more; 0 where it does not pay.

    Example:
        >>> in_common([[*range(20), 1], [*range(20), 2, 3]]), in_common([[1, 2], [1, 3]])
        (20, 0)
    """
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))  # all others are between these two
    pairs = zip(first, last, strict=False)
    alike = next((i for i, (a, b) in enumerate(pairs) if a != b), len(first))
    alike = min(alike, min(map(len, prompts)) - 1)
    return alike if len(prompts) > 1 and alike >= LEAST else 0


def fits(model: Any, width: int) -> bool:
    """Whether padding behind the first tokens of a row of `width` tokens leaves to the others what they see of these.

    Not where it pushes tokens out of a window, or where the angle of a position depends on the length of the row.
    """
    config = model.config.get_text_config()
    windows = [n for name in _WINDOWS for n in in_any_layer(config, name) if isinstance(n, int) and n > 0]
    if windows and prefix_of(model) is not None:
        return False
    return width <= min(windows, default=width) and "longrope" not in str(
        getattr(config, "rope_parameters", "")
    )
