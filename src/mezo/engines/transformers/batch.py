"""A batch made ready for the model before its step: posed, laid out, its tensors on the device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mezo.engines.transformers.form import Form
from mezo.engines.transformers.packing import Layout, lay_out
from mezo.scoring import ScoringBatch
from mezo.util.devices import to_device


@dataclass(frozen=True, slots=True)
class Queries:
    """What the head is asked, in one pass: for each probe the same."""

    positions: torch.Tensor  # (U,) int64: hidden states that are read, in one probe's laid flat
    inverse: torch.Tensor  # (Q,) int64: which of them each query reads
    tokens: torch.Tensor  # (Q,) int64: the token whose log-probability is asked for
    by_token: torch.Tensor  # (Q,) int64: the queries in the order of their tokens
    sorted_tokens: np.ndarray  # (Q,): the tokens in that order

    @classmethod
    def of(
        cls, positions: np.ndarray, inverse: np.ndarray, tokens: np.ndarray, device: torch.device
    ) -> "Queries":
        order = np.argsort(tokens, kind="stable")
        read, asked = (
            to_device(torch.from_numpy(inverse), device),
            to_device(torch.from_numpy(tokens), device),
        )
        by_token = to_device(torch.from_numpy(order), device)
        return cls(to_device(torch.from_numpy(positions), device), read, asked, by_token, tokens[order])

    def within(self, start: int, stop: int) -> torch.Tensor:
        """The queries whose token is in start:stop of the vocabulary."""
        first, last = np.searchsorted(self.sorted_tokens, (start, stop))
        return self.by_token[first:last]


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Token rows that go through the model together. Tensors are those of one probe."""

    mine: np.ndarray  # which queries of the batch are answered here, ascending
    layout: Layout  # its tensors on the device
    packed: bool
    rows: tuple[tuple[int, ...], ...]
    queries: Queries


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A scoring batch cut into shares for a number of probes at once."""

    posed: ScoringBatch
    num_probes: int
    shares: tuple[BatchPart, ...]


def prepare(
    posed: ScoringBatch,
    num_probes: int,
    form: Form,
    *,
    pad: int,
    causal: bool,
    share_prefixes: bool,
    max_tokens: int,
    device: torch.device,
) -> LaidOut:
    """Lay the rows out, in halves where one pass would exceed `max_tokens` tokens of all probes. Does not sync the
    device.
    """
    lengths = np.array([len(row) for row in posed.rows])
    shares: list[BatchPart] = []
    todo = _alike(lengths, form)
    while todo:
        members = todo.pop()
        rows = tuple(posed.rows[r] for r in members)
        # what is longer than positions or an attention window allow is left to the model's own masks
        packed = form.packed and int(lengths[members].max()) <= form.pack_limit
        allowed = replace(
            form,
            packed=packed,
            shared=packed and form.shared and share_prefixes,
            pack_limit=form.pack_limit if packed or form.padded else int(lengths[members].max()),
        )
        layout = lay_out(rows, allowed, pad=pad, causal=causal)
        if layout.computed * num_probes > max_tokens and len(members) > 1:
            todo += np.array_split(members, 2)[::-1]
            continue
        shares.append(_share(posed, members, rows, layout, packed, lengths, device))
    return LaidOut(posed, num_probes, tuple(shares))


def _alike(lengths: np.ndarray, form: Form) -> list[np.ndarray]:
    """Rows that may share a rectangle: all, or those that pack and those of each length. The last comes first."""
    every = np.arange(len(lengths))
    if form.padded:
        return [every]
    packs = form.packed & (lengths <= form.pack_limit)
    groups = [every[packs]] if packs.any() else []
    groups += [every[~packs & (lengths == n)] for n in np.unique(lengths[~packs])]
    return groups[::-1]


def _share(
    posed: ScoringBatch,
    members: np.ndarray,
    rows: tuple[tuple[int, ...], ...],
    layout: Layout,
    packed: bool,
    lengths: np.ndarray,
    device: torch.device,
) -> BatchPart:
    start = np.full(len(posed.rows), -1)  # where each row begins among the tokens of the share
    start[members] = np.cumsum(lengths[members]) - lengths[members]
    mine = np.flatnonzero(start[posed.query_row] >= 0)
    asked = layout.place[start[posed.query_row[mine]] + posed.query_position[mine]]
    unique, inverse = np.unique(asked, return_inverse=True)
    queries = Queries.of(unique, inverse, posed.query_token[mine], device)
    return BatchPart(mine, on_device(layout, device), packed, rows, queries)


def on_device(layout: Layout, device: torch.device) -> Layout:
    tensors = (layout.input_ids, layout.position_ids, layout.mask, layout.keys, layout.lengths)
    moved = [None if t is None else to_device(t, device) for t in tensors]
    return Layout(*moved, layout.place, layout.distinct)  # type: ignore[arg-type]


def stacked(x: torch.Tensor, copies: int) -> torch.Tensor:
    """x once for each probe, one after another along the first dimension."""
    return x if copies == 1 else x.repeat(copies, *[1] * (x.dim() - 1))


def join(parts: Sequence[tuple[np.ndarray, np.ndarray]], num_probes: int, num_queries: int) -> np.ndarray:
    """(P, Q) from the answers of each share and the queries they answer."""
    out = np.empty((num_probes, num_queries))
    for mine, answers in parts:
        out[:, mine] = answers
    return out
