"""Low-rank noise: for a matrix, z = left^T right / sqrt(r), of two thin Gaussian factors.

left is (r, rows) and right (r, columns), all standard normal and independent; so every element of z
has mean 0 and variance 1, no two of them are correlated, and E ||z||^2 is the number of elements, as
for Gaussian noise: epsilon and learning rates carry over. A direction takes (rows + columns) r numbers
instead of rows * columns, and a layer at theta + s z is the layer at theta plus a thin product, so that
a probe needs no perturbed weight at all (`mezo.engines.perturb.low_rank`).

The scale 1 / sqrt(r) is that of Sarkar et al. 2025 (EGGROLL, arXiv:2511.16652). Chen et al. 2024 (LOZO,
arXiv:2410.07698) divide the update by r and the perturbation by nothing, which is the same but for an
epsilon sqrt(r) times as large, and keep `right` for some steps; here both factors are new in every
step, so that steps do not depend on each other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mezo import noise
from mezo.noise.where import Where

Kind = Literal["gaussian", "rademacher", "low-rank", "kept-basis", "rank-one"]  # what z is drawn as

# Matrices with a side shorter than this (the factors of an adapter, a prefix) keep Gaussian noise: it
# costs next to nothing there, and z of rank r would be close to full rank anyway.
SHORTEST = 32

_AT_ONCE = 1 << 22  # elements for whose rows the factors of all directions are held
BLOCK = 1 << 18  # elements that are summed in float32, in a cache, before they are rounded


@dataclass(frozen=True, slots=True)
class LowRank:
    """The noise of one matrix, a function of the seed.

    Component k of `left` at row i is the Gaussian noise of element k * rows + i of a tensor of its own,
    and likewise `right` by columns: a shard of whole rows or columns sees the same z.
    """

    left_id: int  # noise streams, as `noise.tensor_id` gives them
    right_id: int
    rows: int
    columns: int
    rank: int

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, rank: int) -> "LowRank | None":
        """That of a tensor as (-1, last dimension), or None if a side is shorter than `SHORTEST`."""
        if tensor.dim() < 2 or not tensor.numel():
            return None
        columns = tensor.shape[-1]
        rows = tensor.numel() // columns
        if min(rows, columns) < SHORTEST:
            return None
        return cls(noise.tensor_id(f"{name}/left"), noise.tensor_id(f"{name}/right"), rows, columns, rank)

    def left(
        self, seed: int, device: torch.device | str = "cpu", start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        """(r, rows start:stop) float32, divided by sqrt(r)."""
        return self._drawn_left(seed, device, start, stop).mul_(1 / math.sqrt(self.rank))

    def right(self, seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """(r, columns) float32."""
        out = torch.empty(self.rank, self.columns, dtype=torch.float32, device=device)
        noise.fill_(out, Where(self.right_id), seed)
        return out

    def lefts(
        self, seeds: Sequence[int], device: torch.device, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        """(seeds, r, rows start:stop) float32: `left` of each."""
        return torch.stack([self.left(seed, device, start, stop) for seed in seeds])

    def rights(self, seeds: Sequence[int], device: torch.device) -> torch.Tensor:
        """(seeds, r, columns) float32: `right` of each."""
        return torch.stack([self.right(seed, device) for seed in seeds])

    def add_(
        self,
        values: torch.Tensor,
        start: int,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        factor: float = 1.0,
    ) -> None:
        """values <- values + factor * sum_k coefficients[k] * z(seeds[k]).

        values: (1, n) float32, elements `start` on of the matrix in row-major order. z is summed component by
        component, then
        scaled, then added, each operation rounded alone: the same bits on every device and for every cut in blocks.
        """
        if not seeds:
            return
        factors = [factor * a for a in coefficients]
        for begin in range(0, values.shape[1], _AT_ONCE):
            part = values[0, begin : begin + _AT_ONCE]
            self._add(part, start + begin, seeds, factors)

    def _add(
        self, flat: torch.Tensor, start: int, seeds: Sequence[int], coefficients: Sequence[float]
    ) -> None:
        first, last = start // self.columns, -(-(start + len(flat)) // self.columns)  # rows touched
        left, right = self.lefts(seeds, flat.device, first, last), self.rights(seeds, flat.device)
        if flat.device.type == "cpu":
            from mezo.noise.cpu_lowrank import add_

            add_(flat, start, left, right, coefficients, first)
        else:
            add_summed(flat, start, left, right, coefficients, first)

    def perturb(self, weight: torch.Tensor, start: int, seed: int, scale: float, out: torch.Tensor) -> None:
        """out = weight + scale * z, rounded to nearest; both (1, n), elements `start` on. May be one tensor."""
        size = _AT_ONCE if weight.is_cuda else BLOCK
        for begin in range(0, weight.shape[1], size):
            part = slice(begin, min(begin + size, weight.shape[1]))
            values = weight[:, part].to(torch.float32, copy=True)
            self.add_(values, start + begin, [seed], [scale])
            out[:, part] = values

    def sum_of_squares(self, seed: int, device: torch.device | str = "cpu") -> float:
        """||z||^2 * 4096^2, as `noise.sum_of_squares` has it: the sum of the products of the factors' Gram matrices,
        which are exact integers.
        """
        left, right = (_gram(f) for f in (self._drawn_left(seed, device), self.right(seed, device)))
        total = sum(a * b for a, b in zip(left, right, strict=True))
        return total / (self.rank * 4096**2)

    def _drawn_left(
        self, seed: int, device: torch.device | str, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        count = (self.rows if stop is None else stop) - start
        out = torch.empty(self.rank, count, dtype=torch.float32, device=device)
        noise.fill_(out, Where(self.left_id, start, self.rows), seed)
        return out


def add_summed(
    values: torch.Tensor,
    start: int,
    left: torch.Tensor,
    right: torch.Tensor,
    coefficients: Sequence[float],
    first: int,
) -> None:
    """What `mezo.noise.cpu_lowrank.add_` does, to the same bits, on any device."""
    buffers = torch.empty(2, len(values), dtype=torch.float32, device=values.device)
    for u, v, a in zip(left, right, coefficients, strict=True):
        for part, rows, columns in pieces(start, len(values), right.shape[2]):
            piece = values[part].view(-1, columns.stop - columns.start)
            z, product = (buffer[part].view_as(piece) for buffer in buffers)
            own = u[:, rows.start - first : rows.stop - first].unsqueeze(2)
            torch.mul(own[0], v[0, columns], out=z)
            for k in range(1, len(own)):
                z.add_(torch.mul(own[k], v[k, columns], out=product))
            piece.add_(z.mul_(a))


def pieces(start: int, count: int, width: int) -> Iterator[tuple[slice, slice, slice]]:
    """(elements, rows, columns) of `count` elements from `start` on of a matrix of `width` columns, as
    rectangles: the end of a row, whole rows, the beginning of one."""
    done = 0
    while done < count:
        row, column = divmod(start + done, width)
        whole = (count - done) // width if column == 0 else 0
        across = width if whole else min(width - column, count - done)
        size = max(1, whole) * across
        yield slice(done, done + size), slice(row, row + max(1, whole)), slice(column, column + across)
        done += size


def _gram(factor: torch.Tensor) -> list[int]:
    """The inner products of all pairs of rows of round(4096 * factor), exact."""
    q = factor.mul(4096).round_().to(torch.int64)
    return (q.unsqueeze(0) * q.unsqueeze(1)).sum(-1).flatten().tolist()
