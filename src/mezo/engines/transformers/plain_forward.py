"""Log-probabilities by the model's own forward, one row at a time: the reference for every shortcut.

No padding, packing, sharing, stacking or kernel of ours: at a probe every module runs its own forward on its
perturbed tensors (`Probing.at(plainly=True)`). Also the rows on which a model is checked.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from mezo.engines.transformers.batch import BatchPart
from mezo.engines.transformers.checked import Checked
from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.scoring import ScoringBatch
from mezo.types import Probe
from mezo.util.parsing import one_line

# what a model raises that does not take its inputs in the form they are given
NOT_TAKEN = (
    TypeError,
    ValueError,
    RuntimeError,
    LookupError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)

# How far a right shortcut may be off, times what a unit in the last place of every layer's output does. In 16
# bits most sums come out at the same 16 bits whatever their order (tiny models and SmolLM2-135M: right
# forms differ by 0.05 to 0.45 times the measure; rows that leak into each other by 1.4 times and more); in
# float32 every sum differs (0.4 to 2.4 times; wrong forms a thousand times).
_ROOM_16_BITS, _ROOM_FLOAT32 = 1.0, 5.0
_FLOAT32 = torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True, slots=True)
class PlainAnswers:
    """For some rows of a batch at one point, in the order of the batch's queries."""

    queries: np.ndarray  # (Q,) int64: which queries of the batch belong to these rows
    logprobs: np.ndarray  # (Q,) float64
    logits: np.ndarray  # (Q,) float64: of the tokens asked for, as the model gives them
    row: np.ndarray  # (Q,) int64: the row of each


def plain_pass(engine: Checked, share: BatchPart, probes: Sequence[Probe]) -> np.ndarray:
    """(P, Q) by the model's own forward of rows of one length: slow, and right for any model."""
    queries, found = share.queries, []
    for probe in probes:
        with engine.probing.at([probe], rows=len(share.layout.input_ids), plainly=True):
            logits = engine.model(**engine.plain_inputs(share.layout.input_ids)).logits
        table = logits.flatten(0, 1)[queries.positions].float().log_softmax(-1)
        found.append(table[queries.inverse, queries.tokens].double().cpu().numpy())
    return np.stack(found)


@torch.no_grad()
def plain_answers(
    engine: Checked,
    batch: ScoringBatch,
    probe: Probe,
    rows: Sequence[int] | None = None,
    *,
    company: int = 1,
    jitter: bool = False,
) -> PlainAnswers:
    """The answers to the queries of `rows` (default: all), each row run alone.

    company: copies of the row in the pass; the first is read, so the difference shows how large rounding is. jitter:
    move every layer's output by a unit in the last place, as another summation order would.

    Raises MezoError if the model's own forward fails.
    """
    chosen = range(len(batch.rows)) if rows is None else rows
    queries, logprobs, logits = [], [], []
    for r in chosen:
        mine = np.flatnonzero(batch.query_row == r)
        position = torch.from_numpy(batch.query_position[mine]).to(device_of(engine.model))
        read, place = position.unique(return_inverse=True)
        with _jittered(engine.model) if jitter else contextlib.nullcontext():
            table = _logits(engine, batch.rows[r], read, probe, company)
        token = torch.from_numpy(batch.query_token[mine]).to(device_of(engine.model))
        queries.append(mine)
        logits.append(table[place, token].double().cpu().numpy())
        logprobs.append(table.log_softmax(-1)[place, token].double().cpu().numpy())
    order = np.argsort(np.concatenate(queries))
    found = [np.concatenate(part)[order] for part in (queries, logprobs, logits)]
    return PlainAnswers(found[0], found[1], found[2], batch.query_row[found[0]])


def _logits(
    engine: Checked, row: Sequence[int], read: torch.Tensor, probe: Probe, company: int
) -> torch.Tensor:
    """(positions read, V) float32. The head is asked at those positions alone, where it is known how to."""
    model = engine.model
    ids = torch.tensor([list(row)] * company, device=device_of(model))
    hook = None
    if not engine.form.plain:
        hook = engine.head_module.register_forward_pre_hook(
            lambda module, args: (args[0][:, read], *args[1:])
        )
    try:
        with engine.probing.at([probe], rows=company, plainly=True):
            logits = model(**engine.plain_inputs(ids)).logits[0].float()
    except NOT_TAKEN as error:
        raise MezoError(
            f"{type(model).__name__}: its own forward pass fails on a row of {len(row)} tokens "
            f"({type(error).__name__}: {one_line(error)[:200]}); it cannot be tuned or evaluated on such rows"
        ) from error
    finally:
        if hook is not None:
            hook.remove()
    return logits if hook is not None else logits[read]


@contextlib.contextmanager
def _jittered(model: nn.Module) -> Iterator[None]:
    def move(module: nn.Module, args: Any, output: Any) -> Any:
        return tree_map(_moved, output)

    hooks = [m.register_forward_hook(move) for m in model.modules() if not any(True for _ in m.children())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _moved(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point:
        return x
    up = (torch.arange(x.numel(), device=x.device) * 2654435761 >> 7) & 1  # as good as random
    return x + x * (2 * up - 1).view(x.shape).to(x.dtype) * torch.finfo(x.dtype).eps


def apart(found: np.ndarray, expected: PlainAnswers) -> float:
    """How far answers are from those expected: root mean square over a row, of the row that is furthest."""
    return max(row_distances(found, expected.logprobs, expected.row), default=0.0)


def row_distances(found: np.ndarray, expected: np.ndarray, row: np.ndarray) -> list[float]:
    """Root mean square difference over the queries of each row; infinite where an answer is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.square(found - expected)
    squares = np.where(np.isfinite(squares), squares, np.inf)
    return [float(np.sqrt(squares[row == r].mean())) for r in np.unique(row)]


def rounding(alone: PlainAnswers, others: Sequence[PlainAnswers], model: nn.Module | None) -> float:
    """The difference between two ways to the same answers that rounding explains.

    alone: the rows run alone. others: the same rows in company, and with jitter. The median over rows: a router that
    sends a token elsewhere moves one row by more than rounding. model: for its dtypes; None: float32.
    """
    seen = [float(np.median(row_distances(o.logprobs, alone.logprobs, alone.row))) for o in others]
    parameters = () if model is None else model.parameters()
    wide = all(p.dtype == torch.float32 for p in parameters if p.dtype.is_floating_point)
    # the last step, log_softmax, is float32 for every type
    room, rms = _ROOM_FLOAT32 if wide else _ROOM_16_BITS, float(np.sqrt(np.square(alone.logprobs).mean()))
    return room * max(seen) + 8 * _FLOAT32 * rms


LENGTHS = (7, 4, 11)
TOKENS = 4  # asked for at each position
# Widths at which the rows of the check have to stand side by side (11 + 4 and 7 tokens), or be cut. Neither they
# nor what the rows are padded to (20, or 11 at least) is a multiple of the numbers of rows that go through the
# model at once, of one probe or of all (2, 3, 4, 6, 8, 12): a dimension of tokens cannot be taken for one of rows.
PACKED_WIDTH, SHARED_WIDTH = 15, 5


@dataclass(frozen=True, slots=True)
class Check:
    """The rows of the check, and what a model must return for them at some points."""

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
