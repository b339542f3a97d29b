"""What the later blocks and the tokens are to write for the label words, and the rows that belong to it."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mezo.build.block_fit import BlockFit
from mezo.build.block_inputs import HEARD, Reader, writing_of
from mezo.build.label_fit import FrozenFeatures, RowFit, fit_rows
from mezo.build.token_counts import WEIGHTS, TokenCounts, along_of
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.head_inputs import head_inputs
from mezo.scoring import Example, pose
from mezo.tuning.evidence import Evidence, showing
from mezo.tuning.token_evidence import TokenEvidence, token_embedding

CHUNK = 64  # examples scored in one call


def deeper(
    engine: TransformersEngine,
    model: Any,
    examples: Sequence[Example],
    alone: RowFit,
    known: FrozenFeatures,
    reader: Reader,
) -> tuple[tuple[RowFit, Evidence] | None, int]:
    """Evidence that later blocks and tokens write, and rows fitted on to it; and how many rows were scored.

    It is tried with tokens, and without, where that lowers the loss of held-out examples below that of the rows alone,
    `alone`. What the blocks between make of the evidence is not in the fit, so of the two the one counts that is better
    once it is written, and it has to be as good as the rows alone, to two standard errors.
    """
    found: list[tuple[RowFit, Evidence]] = []
    scored = 0
    for blocks, fit in reversed(_fits(model, examples, known, reader)):
        if fit.change is None or fit.losses[1] >= alone.losses[1]:
            continue
        # more than it promises is not to be expected of the other one
        if found and found[0][0].losses[1] <= fit.losses[1]:
            break
        writer = reader.modules[list(reader.inputs)[-1]]
        made, more = _written(engine, model, examples, (blocks, fit), writer)
        scored += more
        if made is not None and not _is_worse(made[0], alone):
            found.append(made)
    return min(found, key=lambda made: made[0].losses[1], default=None), scored


def _fits(
    model: Any, examples: Sequence[Example], known: FrozenFeatures, reader: Reader
) -> list[tuple[BlockFit, RowFit]]:
    """Of what blocks read; and with the tokens, at the best of their weights, if they lower the loss further."""
    blocks = BlockFit.of(known, reader.inputs)
    if blocks is None:
        return []
    fits = [(blocks, fit_rows(blocks.known))]
    counts = None if token_embedding(model) is None else TokenCounts.of(examples)
    for weight in () if counts is None else WEIGHTS:
        with_tokens = BlockFit.of(known, reader.inputs, counts, weight)
        if with_tokens is None:
            break
        fit = fit_rows(with_tokens.known)
        if fit.losses[1] >= fits[-1][1].losses[1]:
            break
        fits = [fits[0], (with_tokens, fit)]
    return fits


def _written(
    engine: TransformersEngine,
    model: Any,
    examples: Sequence[Example],
    fitted: tuple[BlockFit, RowFit],
    writer: torch.nn.Module,
) -> tuple[tuple[RowFit, Evidence] | None, int]:
    """The evidence of a fit, and rows for it; and how many rows were scored. None if the model does not show its slopes.

    Each fold is scored with the evidence and the rows of a fit without it, and a second change of the rows, from there on,
    is fitted to what the head reads, so that they trust the evidence no more than they should.
    """
    blocks, fit = fitted
    assert fit.change is not None
    first, counts = blocks.rows(fit.change), blocks.counts
    writing, along, scored = writing_of(model, writer, examples, first), None, len(examples[:HEARD])
    embedding = token_embedding(model)
    if counts is not None and embedding is not None:
        along, more = along_of(model, embedding[1], examples, first, counts.tokens)
        scored += 3 * more  # a backward pass counts as two
    if writing is None or (counts is not None and along is None):
        return None, scored

    def evidence(change: torch.Tensor) -> Evidence:
        tokens = None
        if counts is not None and along is not None:
            tokens = TokenEvidence(counts.tokens, blocks.says(change), along)
        return Evidence(writing, blocks.reads(change), tokens)

    parts = []
    for out, change in fit.folds:
        with showing(model, evidence(change)):
            part, more = features_of(engine, [examples[i] for i in out.tolist()])
        parts.append(part.moved(blocks.rows(change)))
        scored += more
    order = torch.argsort(torch.cat([out for out, _ in fit.folds]))
    rows = fit_rows(FrozenFeatures.joined(parts).at(order))
    change = first if rows.change is None else first + rows.change
    return (replace(rows, change=change), evidence(fit.change)), scored


def _is_worse(rows: RowFit, alone: RowFit) -> bool:
    """On held-out examples, by more than two standard errors."""
    assert rows.held_out is not None
    assert alone.held_out is not None
    worse = rows.held_out - alone.held_out
    return not float(worse.mean()) <= 2 * float(worse.std()) / math.sqrt(len(worse))


def features_of(
    engine: TransformersEngine,
    examples: Sequence[Example],
    reader: Reader | None = None,
) -> tuple[FrozenFeatures, int]:
    """Of the examples, in their order; and how many rows of tokens went through the model. reader: sees the passes."""
    count, width = len(examples[0].candidates), 0
    lengths = np.array([len(c) for c in examples[0].candidates])
    begins = np.cumsum(lengths) - lengths  # of each candidate among an example's queries
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    hidden: list[Any] = [None] * len(examples)
    first, rest = np.empty((len(examples), count)), np.empty((len(examples), count))
    for start in range(0, len(order), CHUNK):
        members = order[start : start + CHUNK]
        batch = pose([examples[i] for i in members])
        with nullcontext() if reader is None else reader.watching(batch, members):
            logprobs, states = head_inputs(engine, batch)
        width += len(batch.rows)
        each = logprobs.reshape(len(members), -1)
        first[members] = each[:, begins]
        rest[members] = np.add.reduceat(each, begins, axis=1) - each[:, begins]
        for i, state in zip(members, states.reshape(len(members), each.shape[1], -1)[:, 0], strict=True):
            hidden[i] = state
    right = np.array([[c in e.right for c in range(count)] for e in examples])
    parts = (np.stack(hidden).astype(np.float64), first, rest, right, lengths.astype(np.float64))
    return FrozenFeatures(*map(torch.from_numpy, parts)), width
