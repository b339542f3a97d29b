"""Token rows -> the rectangles that go through the model, with as little padding as pays.

Packed: several rows stand one after another in a rectangle's row, kept apart by a block mask and
by positions that start anew. Padded: one row each, right-padded. The log-probabilities are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Widths are multiples of this: matrix libraries keep compiled code for every shape they have met, and
# batches of every length would fill their caches (bfloat16: 0.3 GB in 1,400 steps).
_GRAIN = 16


@dataclass(frozen=True, slots=True)
class Layout:
    input_ids: torch.Tensor  # (B, T) int64
    position_ids: torch.Tensor  # (B, T) int64, from 0 in every token row
    mask: torch.Tensor | None  # (B, 1, T, T) bool, True where attended; None: whole causal rows
    lengths: torch.Tensor  # (B,) tokens in use of each rectangle row
    row_start: torch.Tensor  # (rows,) index of each token row's first token in input_ids.view(-1)


def plan(lengths: Sequence[int], *, attention_share: float, limit: int) -> list[list[int]]:
    """Put token rows into bins so that linear layers and attention together compute the least.

    `attention_share`: cost of one query-key pair relative to one token through all the rest.
    `limit`: the longest bin the model's positions and windows allow.
    """
    longest, total = max(lengths), sum(lengths)
    capacities = {longest, *(min(max(longest, c), limit, total) for c in (64, 128, 256, 512, 1024))}
    plans = [_first_fit(lengths, max(longest, c)) for c in sorted(capacities)]

    def cost(bins: list[list[int]]) -> float:
        width = max(sum(lengths[r] for r in b) for b in bins)
        return len(bins) * width * (1 + attention_share * width)

    return min(plans, key=cost)


def _first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda r: (-lengths[r], r)):
        for b, left in enumerate(room):
            if lengths[row] <= left:
                bins[b].append(row)
                room[b] -= lengths[row]
                break
        else:
            bins.append([row])
            room.append(capacity - lengths[row])
    return bins


def arrange(
    rows: Sequence[Sequence[int]], bins: Sequence[Sequence[int]], *, pad: int, causal: bool, limit: int
) -> Layout:
    """Lay the rows out bin by bin, in rectangles no wider than `limit` unless a row is."""
    used = max(sum(len(rows[r]) for r in b) for b in bins)
    width = min(-(-used // _GRAIN) * _GRAIN, max(limit, used))
    ids = torch.full((len(bins), width), pad, dtype=torch.int64)
    positions = torch.zeros((len(bins), width), dtype=torch.int64)
    owner = torch.full((len(bins), width), -1, dtype=torch.int64)
    row_start = torch.zeros(len(rows), dtype=torch.int64)
    lengths = torch.zeros(len(bins), dtype=torch.int64)
    for b, members in enumerate(bins):
        at = 0
        for r in members:
            end = at + len(rows[r])
            ids[b, at:end] = torch.tensor(rows[r])
            positions[b, at:end] = torch.arange(end - at)
            owner[b, at:end] = r
            row_start[r] = b * width + at
            at = end
        lengths[b] = at
    whole = all(len(b) == 1 for b in bins) and (causal or bool((lengths == width).all()))
    mask = None
    if not whole:
        # padding attends to itself, so that no softmax is over nothing
        mask = owner.unsqueeze(2) == owner.unsqueeze(1)
        if causal:
            mask &= torch.ones(width, width, dtype=torch.bool).tril()
        mask = mask.unsqueeze(1)
    return Layout(ids, positions, mask, lengths, row_start)
