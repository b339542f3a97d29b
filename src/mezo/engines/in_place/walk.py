"""The paper's in-place walk: +eps, -2 eps, +eps on theta itself, z regenerated from its seed.

For studies, and for engines whose weights have fixed addresses. In 16 bits theta drifts; see docs/memory.md.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Literal

import torch

from mezo import noise
from mezo.types import Probe
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights, block_size

Granularity = Literal["matrix", "block", "element"]
_ROWS = 1 << 16  # elements that one call of a kernel goes through, one after another


class InPlace:
    """Moves theta to a probe and back, in the memory of theta alone: z never leaves the kernel.

    weights: for an optimizer to update, so that a mode that holds z can use it again.
    """

    def __init__(self, weights: Weights):
        self.weights = weights

    def visit(self, probes: Iterable[Probe]) -> Generator[Probe]:
        """theta is at each probe while it is yielded; close the generator to be sure to come back."""
        for probe in probes:
            self._move(probe, probe.scale)
            try:
                yield probe
            finally:
                self._move(probe, -probe.scale)

    @contextmanager
    def at(self, probe: Probe) -> Iterator[None]:
        with closing(self.visit([probe])) as points:
            next(points)
            yield

    def release(self) -> None:
        """The step is over: forget what was held for it."""

    def _move(self, probe: Probe, scale: float) -> None:
        if scale:
            self.weights.add_noise_(replace(probe, scale=scale))


class InPieces(InPlace):
    """The same walk, to the same bits, with z in memory a piece at a time: 4 bytes an element of a piece.

    granularity: pieces are whole tensors, blocks of `block` elements, or single elements (for study alone: noise
    comes 128 elements at a time).
    """

    def __init__(self, weights: Weights, granularity: Granularity, block: int):
        super().__init__(weights)
        self.granularity, self.block = granularity, block

    def _move(self, probe: Probe, scale: float) -> None:
        if not scale:
            return
        for n, t in enumerate(self.weights.tunables):
            if self.granularity == "element" and t.low_rank is None and not probe.drift:
                self._one_by_one(t, probe.seed, scale * probe.factor(n))
                continue
            size = {"matrix": t.tensor.numel(), "block": self.block, "element": 1}[self.granularity]
            flat = t.flat()
            for start in range(0, flat.shape[1], size) if probe.factor(n) else ():
                theta = flat[:, start : start + size]
                z = torch.empty(theta.shape, device=theta.device)
                self.weights.along(n, start, probe.seed, probe.drift, z)
                add_(theta, z, scale * probe.factor(n), out=z)

    def _one_by_one(self, t: Tunable, seed: int, scale: float) -> None:
        """Every element by itself, as a row of one: the rows are named, so that no two are taken together."""
        flat = t.flat().view(-1, 1)
        rows = torch.arange(min(len(flat), _ROWS), device=flat.device)
        moved = torch.empty(len(rows), 1, dtype=flat.dtype, device=flat.device)
        for start in range(0, len(flat) if scale else 0, _ROWS):
            theta = flat[start : start + _ROWS]
            out, where = moved[: len(theta)], noise.Where(t.tensor_id, start, row_stride=1)
            kind = self.weights.entrywise
            noise.perturb(theta, where, seed, scale, out, rows=rows[: len(theta)], kind=kind)
            theta.copy_(out)


def add_(theta: torch.Tensor, z: torch.Tensor, scale: float, *, out: torch.Tensor) -> None:
    """theta <- round_to_nearest_even(theta + scale * z), as `noise.perturb` rounds. out: float32 like z, or z itself."""
    theta.copy_(torch.mul(z, scale, out=out).add_(theta))


def add_held_(theta: torch.Tensor, z: torch.Tensor, scale: float) -> None:
    """`add_` where z is to stay: theta and z are (1, elements), and gone through block by block."""
    size = block_size(theta.device)
    spare = torch.empty(1, min(size, z.shape[1]), device=z.device)
    for start in range(0, z.shape[1], size):
        part = z[:, start : start + size]
        add_(theta[:, start : start + size], part, scale, out=spare[:, : part.shape[1]])
