"""Rows that begin alike, one after the other: so that an engine's cache has the beginning when it is needed.

An engine that puts all rows of a call into one batch computes what they share once for each of them,
since its cache is filled when the batch is done. So the first row of every group goes ahead.
"""

from collections.abc import Callable, Sequence

from mezo.engines.serving.backend import Answer, Ask, Tokens

WORTH = 32  # tokens in common that are worth a batch of their own


def in_waves(asks: Sequence[Ask], score: Callable[[Sequence[Ask]], list[Answer]]) -> list[Answer]:
    """The answers of `score`, in the order of the asks."""
    answers: dict[int, Answer] = {}
    for wave in waves(asks):
        answers |= zip(wave, score([asks[i] for i in wave]), strict=True)
    return [answers[i] for i in range(len(asks))]


def waves(asks: Sequence[Ask]) -> list[list[int]]:
    """Numbers of the asks, in one or two calls: those that lead a group, then those that begin like one."""
    order = sorted(range(len(asks)), key=lambda i: (asks[i].adapter or "", asks[i].tokens))
    leaders: list[int] = []
    followers: list[int] = []
    for i in order:
        leader = asks[leaders[-1]] if leaders else asks[i]
        alike = leader.adapter == asks[i].adapter and in_common(leader.tokens, asks[i].tokens) >= WORTH
        (followers if leaders and alike else leaders).append(i)
    return [wave for wave in (leaders, followers) if wave]


def in_common(a: Tokens, b: Tokens) -> int:
    """Tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
