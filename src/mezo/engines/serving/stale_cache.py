"""Whether an engine's cache gave back keys and values of other weights than those it was asked at.

Right after its cache was flushed, or an adapter was loaded under a new name, an engine can have taken
from its cache only what rows of the same call have in common. If it says it took more, something was
left from before: the losses would be wrong, and the projected gradient with them.
"""

from collections.abc import Sequence
from itertools import pairwise

from mezo.engines.serving.backend import Answer, Ask
from mezo.engines.serving.prefix_order import in_common
from mezo.errors import MezoError


def check_fresh(asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
    """For the first call after a flush, or at new adapters. Raises MezoError if a row's cache was not its own."""
    order = sorted(range(len(asks)), key=lambda i: (asks[i].adapter or "", asks[i].tokens))
    common = [0] * len(asks)
    for a, b in pairwise(order):  # in this order, a neighbour has the most in common
        if asks[a].adapter == asks[b].adapter:
            shared = in_common(asks[a].tokens, asks[b].tokens)
            common[a], common[b] = max(common[a], shared), max(common[b], shared)
    for answer, most in zip(answers, common, strict=True):
        if answer.cached_tokens > most:
            raise MezoError(
                f"the engine took {answer.cached_tokens} tokens of a row from its cache where rows of this call "
                f"have {most} in common: they were computed with other weights, so the loss is wrong; the cache "
                "was not flushed, or an adapter's name was used before (turn the cache off with --no-kv-cache)"
            )
