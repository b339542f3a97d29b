"""What an engine is asked: `pose`'s rows in the fewest questions, in the order its cache likes, and its answers
checked.

An engine gives the log-probabilities of a row's own tokens, or of any tokens after the row. So the tokens of a
candidate are asked for as part of the row, and the tokens before them are left to the engine's cache. Candidates of
one token each are asked for together, after the prompt.

An engine that puts all rows of a call into one batch computes what they share once a row, since its cache is filled
when the batch is done. So the first row of every group goes ahead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mezo.engines.serving.backend import Answer, Ask, Tokens
from mezo.errors import MezoError
from mezo.scoring import ScoringBatch


@dataclass(frozen=True)
class Asked:
    """The questions of a batch, each once, and where the answer to every query stands."""

    asks: tuple[Ask, ...]
    ask: np.ndarray  # (Q,) int64: which of them answers the query ...
    offset: np.ndarray  # (Q,) int64: ... and at which place of its logprobs
    tokens: int  # of all rows, equal ones counted as often as they were posed

    def of(self, adapter: str | None) -> list[Ask]:
        """The same questions of the model with an adapter."""
        return [replace(ask, adapter=adapter) for ask in self.asks]

    def values(self, answers: Sequence[Answer]) -> np.ndarray:
        """(Q,) float64: every query's log-probability."""
        return np.array(
            [answers[a].logprobs[i] for a, i in zip(self.ask, self.offset, strict=True)], dtype=np.float64
        )


def asked(posed: ScoringBatch) -> Asked:
    """The questions of a batch of causal rows."""
    wanted: list[dict[int, list[int]]] = [{} for _ in posed.rows]
    queries = list(
        zip(*(a.tolist() for a in (posed.query_row, posed.query_position, posed.query_token)), strict=True)
    )
    for row, position, token in queries:
        tokens = wanted[row].setdefault(position, [])
        if token not in tokens:
            tokens.append(token)
    asks: dict[Ask, int] = {}
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    total = 0
    for number, (row, here) in enumerate(zip(posed.rows, wanted, strict=True)):
        for ask, places in _asks_of_row(row, here):
            total += len(ask.tokens)
            index = asks.setdefault(ask, len(asks))
            found |= {(number, *place): (index, offset) for place, offset in places.items()}
    where = np.array([found[query] for query in queries], dtype=np.int64).reshape(-1, 2)
    return Asked(tuple(asks), where[:, 0], where[:, 1], total)


def _asks_of_row(row: Tokens, wanted: dict[int, list[int]]) -> list[tuple[Ask, dict[tuple[int, int], int]]]:
    """The questions of one row, with the (position, token) that each offset of their answers is of.

    wanted: the tokens whose log-probability is asked for after each position.
    """
    last = len(row) - 1
    within = {p: row[p + 1] for p in wanted if p < last and row[p + 1] in wanted[p]}
    if within and len(wanted.get(last, ())) == 1:
        within[last] = wanted[last][0]  # the row's one continuation: asked for with what leads to it
    asks = []
    if within:
        tokens = (*row[: max(within) + 1], within[max(within)])
        start = min(within) + 1
        asks.append((Ask(tokens, start), {(p, token): p + 1 - start for p, token in within.items()}))
    for position, tokens in wanted.items():
        if rest := tuple(t for t in tokens if within.get(position) != t):
            ask = Ask(row[: position + 1], choices=rest)
            asks.append((ask, {(position, token): i for i, token in enumerate(rest)}))
    return asks


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


def check_fresh(asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
    """For the first call after a flush, or at new adapters: raises MezoError if a row's cache was of other weights.

    The engine can then have cached only what rows of the same call have in common; more would make the losses wrong.
    """
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
