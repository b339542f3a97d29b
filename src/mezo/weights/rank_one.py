"""Rank-one signs: for a matrix, z = left^T right of two vectors of independent signs.

Every element of z is 1 or -1, no two of them are correlated, and ||z||^2 is the number of elements: epsilon and
learning rates carry over from other noise. What is moved by sum_k c_k z_k is moved by a matrix product, and where the
c_k are integers times one number (`mezo.noise.exact_sums`), every partial sum of it is exact: the product has the same
bits from every library, on every device, for every cut of the matrix. It is scaled and added afterwards, each operation
rounded alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ldexp
from typing import Any, NamedTuple

import torch

from mezo import noise
from mezo.noise.exact_sums import whole
from mezo.types import Scaling
from mezo.util.devices import to_device
from mezo.weights.low_rank_noise import BLOCK, LowRank, pieces
from mezo.weights.tunable import Tunable


@dataclass(frozen=True, slots=True)
class RankOne(LowRank):
    """The noise of one matrix, a function of the seed: that of two vectors, which have streams of their own.

    Or of a rectangle of a matrix, which is a part of either vector: `rows` and `columns` are then the rectangle's.
    """

    first_row: int = 0  # of the matrix, that the rectangle begins with
    first_column: int = 0

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, rank: int = 1) -> "RankOne | None":
        """That of a tensor as (-1, last dimension), or None for a vector, whose elements have signs of their own."""
        if tensor.dim() < 2 or not tensor.numel():
            return None
        columns = tensor.shape[-1]
        streams = noise.tensor_id(f"{name}/left"), noise.tensor_id(f"{name}/right")
        return cls(*streams, tensor.numel() // columns, columns, 1)

    def left(
        self, seed: int, device: torch.device | str = "cpu", start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        return self.lefts([seed], device, start, stop)[0]

    def right(self, seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
        return self.rights([seed], device)[0]

    def lefts(
        self,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        start: int = 0,
        stop: int | None = None,
    ) -> torch.Tensor:
        count = (self.rows if stop is None else stop) - start
        return noise.vectors(self.left_id, seeds, self.first_row + start, count, device).unsqueeze(1)

    def rights(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        return noise.vectors(self.right_id, seeds, self.first_column, self.columns, device).unsqueeze(1)

    def drawn(self, moved: "Moved", device: torch.device, first: int = 0, last: int | None = None) -> "Drawn":
        """The sum of a step, for rows first:last."""
        left = self.lefts(moved.seeds, device, first, last)[:, 0]
        right = self.rights(moved.seeds, device)[:, 0]
        q, e = whole(moved.coefficients)
        right.mul_(to_device(torch.tensor(q, dtype=torch.float32), device).unsqueeze(1))
        return Drawn(left, right, moved.factor * ldexp(1.0, e), first)

    def add_(
        self,
        values: torch.Tensor,
        start: int,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        factor: float = 1.0,
    ) -> None:
        if seeds:
            rows = start // self.columns, -(-(start + values.shape[1]) // self.columns)  # touched
            self.drawn(Moved(seeds, coefficients, factor), values.device, *rows).add_(values, start)

    def blocks(self, device: torch.device) -> Iterator[slice]:
        """Elements, in row-major order, of whole rows that fit into a cache together with what is added to them."""
        size = max(1, _block(device) // self.columns) * self.columns
        for start in range(0, self.rows * self.columns, size):
            yield slice(start, min(start + size, self.rows * self.columns))

    def sum_of_squares(self, seed: int, device: torch.device | str = "cpu") -> float:
        """||z||^2 * 4096^2, as `noise.sum_of_squares` has it."""
        return float(self.rows * self.columns * 4096**2)


class Moved(NamedTuple):
    """factor * sum_k coefficients[k] z(seeds[k]): what a step adds to one tensor."""

    seeds: Sequence[int]
    coefficients: Sequence[float]
    factor: float = 1.0


class Drawn(NamedTuple):
    """unit * left^T right: a step's sum for some rows of a matrix, of which the first is `first`."""

    left: torch.Tensor  # (K, rows) signs
    right: torch.Tensor  # (K, columns) signs times integers
    unit: float
    first: int

    def add_(self, values: torch.Tensor, start: int) -> None:
        """values <- values + the sum; (1, n) float32, elements `start` on of the matrix in row-major order."""
        columns = self.right.shape[1]
        at_once = max(1, _block(values.device) // columns)  # rows
        buffer = torch.empty(min(at_once * columns, values.numel()), device=values.device)
        for part, rows, across in pieces(start, values.shape[1], columns):
            piece = values[0, part].view(-1, across.stop - across.start)
            own = self.left[:, rows.start - self.first : rows.stop - self.first]
            for begin in range(0, len(piece), at_once):
                block = piece[begin : begin + at_once]
                product = buffer[: block.numel()].view_as(block)
                multiply(own[:, begin : begin + len(block)].t(), self.right[:, across], product)
                block.add_(product.mul_(self.unit))


def _block(device: torch.device) -> int:
    """Elements at a time: of a cache; on a GPU so many that launching kernels does not count. The bits are the same."""
    return 1 << 23 if device.type == "cuda" else BLOCK


def in_common(
    n: int,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    scalings: Sequence[Scaling | None],
    factor: float,
) -> Moved:
    """The directions that move the n-th tensor.

    A scaling that all have in common is a part of the factor, so that the coefficients stay what was recorded.
    """
    scales = [s.factors[n] if s else 1.0 for s in scalings] or [1.0] * len(seeds)
    moved = [(seed, a, scale) for seed, a, scale in zip(seeds, coefficients, scales, strict=True) if scale]
    shared = {scale for _, _, scale in moved}
    keys = [seed for seed, _, _ in moved]
    if len(shared) == 1:
        return Moved(keys, [a for _, a, _ in moved], factor * shared.pop())
    return Moved(keys, [a * scale for _, a, scale in moved], factor)


def update_(t: Tunable, sums: Sequence[tuple[Moved, float, int]], rounding: noise.Rounding) -> None:
    """A tensor with this noise, by one (sum, decay, rounding seed) after another.

    A block goes through all of them while it is in a cache: the same bits as one pass for each.
    """
    assert isinstance(t.low_rank, RankOne)
    drawn = [
        (t.low_rank.drawn(moved, t.tensor.device) if moved.seeds else None, decay, seed)
        for moved, decay, seed in sums
    ]
    for part in t.low_rank.blocks(t.tensor.device):
        theta = t.flat()[:, part]
        for added, decay, seed in drawn:
            values = theta.float()  # theta itself, if it is float32
            if decay != 1:
                values.mul_(decay)
            if added is not None:
                added.add_(values, part.start)
            if values is not theta:
                t.store_(part, values, rounding, seed)


def multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out = left @ right in whole float32, whatever torch was told of products; `out=` is not subject to autocast."""
    with _in_float32():
        torch.mm(left, right, out=out)


@contextmanager
def _in_float32() -> Iterator[None]:
    """Inside the block products are of float32 values as they are: not of their first bits, TF32 or bfloat16."""
    backends: list[Any] = [
        getattr(backend, "matmul", None) for backend in (torch.backends.cuda, torch.backends.mkldnn)
    ]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before torch 2.9
        legacy = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(legacy)
        return
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
