"""Token rows -> the rectangle that goes through the model, with as little computed twice as pays.

The cheapest of three forms; the log-probabilities are the same. Padded: a token row in each rectangle row. Packed:
several, separated by a block mask and restarting positions. Shared: leading tokens that rows have in common (a
template, demonstrations, a passage) occur once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mezo.engines.transformers.form import Form


@dataclass(frozen=True, slots=True)
class Tree:
    """A radix tree of token rows. Nodes in depth-first order, their tokens end to end: a token follows all it attends
    to.
    """

    tokens: np.ndarray  # (N,) int64
    depth: np.ndarray  # (N,) int64: the token's position in every row that holds it
    node: np.ndarray  # (N,) int64: which node the token belongs to
    on_path: np.ndarray  # (nodes, nodes) bool: [a, b] where a is b or above it
    paths: list[np.ndarray]  # for each row, where in `tokens` its own stand

    def before(self, start: int, stop: int) -> np.ndarray:
        """The tokens before `start` that those in start:stop may attend to."""
        needed = np.any(self.on_path[:, np.unique(self.node[start:stop])], axis=1)
        return np.flatnonzero(np.take(needed, self.node[:start]))


def grow(rows: Sequence[Sequence[int]]) -> Tree:
    """The radix tree of token rows; equal rows share all their tokens. No row may be empty."""
    arrays = [np.array(row, dtype=np.int64) for row in rows]
    order = sorted(range(len(rows)), key=lambda r: tuple(rows[r]))
    runs: list[np.ndarray] = []
    starts: list[int] = []
    parents: list[int] = []
    leaf = [-1] * len(rows)
    # (first and last of the sorted rows, tokens they are known to share, the node that ends there)
    todo = [(0, len(order), 0, -1)]
    while todo:
        low, high, depth, parent = todo.pop()
        while low < high and len(arrays[order[low]]) == depth:  # in sorted order they come first
            leaf[order[low]] = parent
            low += 1
        if low == high:
            continue
        token = arrays[order[low]][depth]
        end = low + 1
        while end < high and arrays[order[end]][depth] == token:
            end += 1
        if end < high:
            todo.append((end, high, depth, parent))
        first, last = arrays[order[low]], arrays[order[end - 1]]
        common = depth + _shared(first[depth:], last[depth:])
        runs.append(first[depth:common])
        starts.append(depth)
        parents.append(parent)
        todo.append((low, end, common, len(runs) - 1))
    return _flat(runs, starts, parents, leaf)


def _flat(runs: list[np.ndarray], starts: list[int], parents: list[int], leaf: list[int]) -> Tree:
    sizes = np.array([len(run) for run in runs])
    ends = np.cumsum(sizes)
    on_path = np.eye(len(runs), dtype=bool)
    spans: list[np.ndarray] = []  # of each node: the tokens from the root to its end
    for n, parent in enumerate(parents):
        own = np.arange(ends[n] - sizes[n], ends[n])
        if parent >= 0:
            on_path[:, n] |= on_path[:, parent]
            own = np.concatenate([spans[parent], own])
        spans.append(own)
    return Tree(
        tokens=np.concatenate(runs),
        depth=np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)]),
        node=np.repeat(np.arange(len(runs)), sizes),
        on_path=on_path,
        paths=[spans[n] for n in leaf],
    )


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading elements are equal."""
    size = min(len(a), len(b))
    differ = a[:size] != b[:size]
    return int(differ.argmax()) if differ.any() else size


# What goes through the model at once is a multiple of about this many tokens: matrix libraries keep
# compiled code for every shape they have met, and batches of every size would fill their caches
# (bfloat16: 0.3 GB in 1,400 steps).
_GRAIN = 32
_WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True, slots=True)
class Layout:
    """A rectangle of B rows of T tokens; S keys stand before a row's own where `keys` is given."""

    input_ids: torch.Tensor  # (B, T) int64
    position_ids: torch.Tensor  # (B, T) int64: a token's place in its token row
    mask: torch.Tensor | None  # (B, 1, T, S + T) bool, True where attended; None: whole causal rows
    keys: torch.Tensor | None  # (B, S + T) int64: the tokens, counted flat, whose keys a row reads
    lengths: torch.Tensor  # (B,) tokens in use of each rectangle row
    place: np.ndarray  # (asked,) int64: flat index of every token of every token row, end to end
    distinct: int  # tokens that are not padding

    @property
    def asked(self) -> int:
        """Tokens of all token rows: what would be computed without sharing or padding."""
        return len(self.place)

    @property
    def computed(self) -> int:
        return self.input_ids.numel()


def lay_out(rows: Sequence[Sequence[int]], form: Form, *, pad: int, causal: bool) -> Layout:
    """The cheapest layout of token rows that a form allows.

    form: `packed` rows may share a rectangle row; `shared` leading tokens are computed once, in causal models only.
    `pack_limit` is the widest rectangle (a row is cut for it only if sharing is allowed). With a `width`, the shared
    layout, or if that is not allowed the packed one, has this width.
    """
    lengths, width, limit = [len(row) for row in rows], form.width, form.pack_limit
    bins = [[r] for r in range(len(rows))]
    if not form.packed:
        return _stand(rows, bins, pad=pad, causal=causal, limit=limit)
    if width is not None and not form.shared:
        return _stand(rows, _first_fit(lengths, max(width, *lengths)), pad=pad, causal=causal, limit=width)
    plans = [(cost, 0, bins) for cost, bins in _packings(lengths, causal, form.attention_share, limit)]
    best_cost, _, bins = min(plans)
    if form.shared and causal:
        tree = grow(rows)
        if width is None:
            options = [
                (_shared_cost(tree, w, form.attention_share, form.key_share), w)
                for w in _shared_widths(tree, limit)
            ]
            cost, width = min(options, default=(np.inf, 0))
        else:
            cost = -1.0
        if cost < best_cost:
            return _share(tree, width, pad)
    return _stand(rows, bins, pad=pad, causal=causal, limit=limit)


# ------------------------------------------------------------------ padded and packed


def _packings(
    lengths: Sequence[int], causal: bool, attention_share: float, limit: int
) -> Iterator[tuple[float, list[list[int]]]]:
    """(cost, bins) for one row a bin, and for bins of several widths."""
    longest, total = max(lengths), sum(lengths)
    one_each = [[r] for r in range(len(lengths))]
    plain = causal or min(lengths) == longest  # no mask, and causal attention computes half
    yield (
        len(lengths)
        * _up(longest, _grain(len(lengths)))
        * (1 + attention_share * longest * (0.5 if plain and causal else 1.0)),
        one_each,
    )
    for capacity in sorted({longest, *(min(max(longest, w), limit, total) for w in _WIDTHS)}):
        bins = _first_fit(lengths, max(longest, capacity))
        width = _up(max(sum(lengths[r] for r in b) for b in bins), _grain(len(bins)))
        yield len(bins) * width * (1 + attention_share * width), bins


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


def _stand(
    rows: Sequence[Sequence[int]], bins: Sequence[Sequence[int]], *, pad: int, causal: bool, limit: int
) -> Layout:
    """Whole token rows, bin by bin, no wider than `limit` unless a row is."""
    used = max(sum(len(rows[r]) for r in b) for b in bins)
    width = min(_up(used, _grain(len(bins))), max(limit, used))
    ids = np.full((len(bins), width), pad)
    positions = np.zeros((len(bins), width), dtype=np.int64)
    owner = np.full((len(bins), width), -1)
    start = np.zeros(len(rows), dtype=np.int64)
    lengths = np.zeros(len(bins), dtype=np.int64)
    for b, members in enumerate(bins):
        at = 0
        for r in members:
            end = at + len(rows[r])
            ids[b, at:end], positions[b, at:end], owner[b, at:end] = rows[r], np.arange(end - at), r
            start[r] = b * width + at
            at = end
        lengths[b] = at
    mask = None
    if not (all(len(b) == 1 for b in bins) and (causal or bool((lengths == width).all()))):
        # padding attends to itself, so that no softmax is over nothing
        mask = owner[:, :, None] == owner[:, None, :]
        if causal:
            mask &= np.tri(width, dtype=bool)
    place = np.concatenate([start[r] + np.arange(len(row)) for r, row in enumerate(rows)])
    return _layout(place, len(place), ids, positions, mask, None, lengths)


# ------------------------------------------------------------------ shared


def _shared_widths(tree: Tree, limit: int) -> Iterator[int]:
    total = len(tree.tokens)
    for rows in sorted({-(-total // min(w, limit)) for w in _WIDTHS}):
        yield min(limit, _up(-(-total // rows), _grain(rows)))


def _shared_cost(tree: Tree, width: int, attention_share: float, key_share: float) -> float:
    num_rows = -(-len(tree.tokens) // width)
    before = max(len(tree.before(b * width, (b + 1) * width)) for b in range(num_rows))
    handed = num_rows * (before + width) if before else 0
    return num_rows * width * (1 + attention_share * (before + width)) + key_share * handed


def _share(tree: Tree, width: int, pad: int) -> Layout:
    """The tree's tokens, each once and in its order, cut into rows wherever a row is full."""
    total = len(tree.tokens)
    num_rows = -(-total // width)
    size = num_rows * width
    ids, positions, node = np.full(size, pad), np.zeros(size, dtype=np.int64), np.full(size, -1)
    ids[:total], positions[:total], node[:total] = tree.tokens, tree.depth, tree.node
    before = [tree.before(b * width, (b + 1) * width) for b in range(num_rows)]
    extra = max(map(len, before))
    own = np.arange(size).reshape(num_rows, width)
    keys = np.concatenate([np.repeat(own[:, :1], extra, axis=1), own], axis=1)
    real = np.ones_like(keys, dtype=bool)
    for b, needed in enumerate(before):
        keys[b, : len(needed)] = needed
        real[b, len(needed) : extra] = False
    # a token sees what is on its own path, up to itself; padding sees itself
    q, k = own[:, :, None], keys[:, None, :]
    seen = tree.on_path[node[k], node[q]] & (positions[k] <= positions[q]) & (node[q] >= 0) & (node[k] >= 0)
    mask = (seen | ((q == k) & (node[q] < 0))) & real[:, None, :]
    lengths = np.minimum(width, total - width * np.arange(num_rows))
    shape = num_rows, width
    arrays = (ids.reshape(shape), positions.reshape(shape), mask, keys if extra else None, lengths)
    return _layout(np.concatenate(tree.paths), total, *arrays)


def _layout(place: np.ndarray, distinct: int, *arrays: np.ndarray | None) -> Layout:
    """arrays: ids, positions, mask, keys, lengths."""
    ids, positions, mask, keys, lengths = (None if a is None else torch.from_numpy(a) for a in arrays)
    assert ids is not None and positions is not None and lengths is not None  # noqa: PT018
    return Layout(ids, positions, None if mask is None else mask.unsqueeze(1), keys, lengths, place, distinct)


def _grain(num_rows: int) -> int:
    """What widths are rounded up to, so that rows x width comes in steps of about _GRAIN."""
    return max(1, _GRAIN // num_rows)


def _up(n: int, grain: int) -> int:
    return -(-n // grain) * grain
