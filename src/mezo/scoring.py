"""What is asked of a model: log p(token | everything before it), many at once.

A `ScoringBatch` says which token rows go through the model and which log-probabilities are read
off. It is the only thing an engine needs to know of a task, and the only thing an objective needs
to know of an engine is the answer: one float64 per query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised example.

    Causal: `prompt` then a candidate. Masked: `prompt` holds the mask token at `mask_position`
    and every candidate is one token.
    """

    prompt: tuple[int, ...]
    # Each at least one token; one candidate: a completion; none: a prompt for rewards that need no answer.
    candidates: tuple[tuple[int, ...], ...]
    answer: int  # index of the right candidate
    mask_position: int | None = None  # None: causal
    references: tuple[str, ...] = ()  # accepted answers as text, for metrics of generated text
    # The row's own fields, for reward functions. Two examples are equal by what a model is asked.
    fields: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    answers: tuple[int, ...] = ()  # all right candidates where several are; () means `answer` alone
    group: str | int | None = None  # examples judged together, such as the answers to one question
    # Places in the candidates that are scored, ascending, the last one last; None: all. Of a conversation, the
    # assistant's turns.
    scored: tuple[int, ...] | None = None
    # log p of each candidate at the weights that a run starts from, for objectives that compare with it
    reference: tuple[float, ...] = field(default=(), compare=False, repr=False)
    # of what is drawn after it (`noise.seeds.sampling_key`)
    key: int = field(default=0, compare=False, repr=False)
    prefill: str = ""  # what the model writes begins with this; of candidates it is no part
    begun: tuple[int, ...] = ()  # its tokens

    @property
    def right(self) -> tuple[int, ...]:
        """The right candidates: one, several, or none where the row has no answer."""
        return self.answers or ((self.answer,) if self.candidates else ())

    @property
    def asked(self) -> tuple[int, ...]:
        """The tokens that the model goes on behind where it writes."""
        return self.prompt + self.begun

    def said(self, text: str) -> str:
        """What is judged of a text that was written behind `asked`."""
        return (self.prefill + text).strip()


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """Rows of tokens, and Q queries into them; query q belongs to one candidate of one example."""

    rows: tuple[tuple[int, ...], ...]
    query_row: np.ndarray  # (Q,) int64
    query_position: np.ndarray  # (Q,) int64: the hidden state at this position gives ...
    query_token: np.ndarray  # (Q,) int64: ... the log-probability of this token
    query_candidate: np.ndarray  # (Q,) int64: index into candidate_example, ascending
    candidate_example: np.ndarray  # (C,) int64: example of each candidate, ascending
    candidate_is_answer: np.ndarray  # (C,) bool
    num_examples: int
    candidate_reference: np.ndarray | None = None  # (C,) float64: `Example.reference`; None: not all have one

    @property
    def num_tokens(self) -> int:
        return sum(len(row) for row in self.rows)


def pose(examples: Sequence[Example], *, answers_only: bool = False) -> ScoringBatch:
    """Lay examples out as rows and queries.

    Nothing is computed twice: the last token of a causal candidate is never fed, equal rows are
    fed once, and a causal row that begins a longer row of the same example is read off that one.
    So candidates of a single token cost one row an example.
    `answers_only`: only the right candidates of each example are scored.
    """
    rows: list[tuple[int, ...]] = []
    queries: list[tuple[int, int, int, int]] = []
    candidate_example: list[int] = []
    is_answer: list[bool] = []
    reference: list[float] = []
    for number, example in enumerate(examples):
        right = example.right
        chosen = sorted(right) if answers_only else range(len(example.candidates))
        causal = example.mask_position is None
        mine: list[int] = []  # rows of this example, longest first
        order = sorted(chosen, key=lambda c: -len(example.candidates[c])) if causal else chosen
        row_of: dict[int, int] = {}
        for c in order:
            row = example.prompt + example.candidates[c][:-1] if causal else example.prompt
            found = next((r for r in mine if rows[r][: len(row)] == row), None)
            if found is None:
                found = len(rows)
                rows.append(row)
                mine.append(found)
            row_of[c] = found
        for c in chosen:
            tokens = example.candidates[c]
            first = len(example.prompt) - 1 if example.mask_position is None else example.mask_position
            places = range(len(tokens)) if example.scored is None else example.scored
            queries += [(row_of[c], first + i, tokens[i], len(candidate_example)) for i in places]
            candidate_example.append(number)
            is_answer.append(c in right)
            reference += example.reference[c : c + 1]
    table = np.array(queries, dtype=np.int64).reshape(-1, 4)
    return ScoringBatch(
        rows=tuple(rows),
        query_row=table[:, 0],
        query_position=table[:, 1],
        query_token=table[:, 2],
        query_candidate=table[:, 3],
        candidate_example=np.array(candidate_example, dtype=np.int64),
        candidate_is_answer=np.array(is_answer, dtype=bool),
        num_examples=len(examples),
        candidate_reference=np.array(reference) if len(reference) == len(is_answer) else None,
    )


def candidate_sums(batch: ScoringBatch, logprobs: np.ndarray) -> np.ndarray:
    """(Q,) log-probabilities -> (C,) log-probability of each candidate: the sum over its tokens."""
    return np.bincount(batch.query_candidate, weights=logprobs, minlength=len(batch.candidate_example))


def candidate_scores(batch: ScoringBatch, logprobs: np.ndarray) -> np.ndarray:
    """(Q,) log-probabilities -> (C,) mean log-probability of each candidate's tokens."""
    return candidate_sums(batch, logprobs) / np.bincount(
        batch.query_candidate, minlength=len(batch.candidate_example)
    )


def predictions(batch: ScoringBatch, logprobs: np.ndarray) -> np.ndarray:
    """(Q,) log-probabilities -> (N,) position, among its example's candidates, of the best one."""
    scores = candidate_scores(batch, logprobs)
    starts = np.searchsorted(batch.candidate_example, np.arange(batch.num_examples + 1))
    return np.array([int(np.argmax(scores[a:b])) for a, b in zip(starts[:-1], starts[1:], strict=True)])
