"""The rows on which a model is checked, and what it has to make of them."""

from dataclasses import dataclass, replace

import numpy as np

from mezo.engines.transformers.checked import Checked
from mezo.engines.transformers.plain_forward import (
    PlainAnswers,
)
from mezo.scoring import ScoringBatch
from mezo.types import Probe

LENGTHS = (7, 4, 11)
TOKENS = 4  # asked for at each position
# Widths at which the rows of the check have to stand side by side (11 + 4 and 7 tokens), or be cut. Neither they
# nor what the rows are padded to (20, or 11 at least) is a multiple of the numbers of rows that go through the
# model at once, of one probe or of all (2, 3, 4, 6, 8, 12): a dimension of tokens cannot be taken for one of rows.
PACKED_WIDTH, SHARED_WIDTH = 15, 5


@dataclass(frozen=True, slots=True)
class Check:
    """The rows of the check, and what a model has to make of them at some points."""

    batch: ScoringBatch
    probes: tuple[Probe, ...]
    expected: tuple[PlainAnswers, ...]  # for each probe
    bound: float  # what rounding explains

    def first(self, count: int) -> "Check":
        return replace(self, probes=self.probes[:count], expected=self.expected[:count])

    def only(self, i: int) -> "Check":
        return replace(self, probes=(self.probes[i],), expected=(self.expected[i],))


def check_batch(engine: Checked) -> ScoringBatch:
    vocabulary = engine.head_module.weight.shape[0]
    table = engine.model.get_input_embeddings()
    known = min(vocabulary, getattr(table, "num_embeddings", None) or vocabulary)
    rows = tuple(
        tuple((17 * (r + 1) * (i + 3) + 11 * i) % max(1, known - 10) + 5 for i in range(n))
        for r, n in enumerate(LENGTHS)
    )
    rows = tuple(rows[0][:3] + row[3:] for row in rows)  # they begin alike
    rows = tuple(tuple(t if t != engine.pad else t + 1 for t in row) for row in rows)
    row, position = zip(
        *((r, i) for r, n in enumerate(LENGTHS) for i in range(n) if i % 4 != 1 for _ in range(TOKENS)),
        strict=True,
    )
    count = len(row)
    return ScoringBatch(
        rows=rows,
        query_row=np.array(row),
        query_position=np.array(position),
        query_token=(np.arange(count) * 31 + 7) % vocabulary,
        query_candidate=np.arange(count),
        candidate_example=np.arange(count),
        candidate_is_answer=np.ones(count, dtype=bool),
        num_examples=count,
    )
