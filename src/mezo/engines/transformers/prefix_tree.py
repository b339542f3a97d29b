"""Which leading tokens rows have in common: a radix tree, laid flat.

In-context demonstrations, a template, the passage behind several questions, the question behind
several candidates: each node of the tree is a run of tokens that are computed once, however many
rows go through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in depth-first order, their tokens end to end: a token stands after all it may attend to."""

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
