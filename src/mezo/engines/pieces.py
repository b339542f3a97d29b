"""`Weights` whose tensors are in pieces, as a worker of a serving engine holds them."""

from collections.abc import Iterator, Sequence

import torch

from mezo import noise
from mezo.engines.addresses import Piece
from mezo.errors import MezoError
from mezo.heading import Heading
from mezo.types import Scaling
from mezo.weights import Tunable, Weights, block_size


class Pieces(Weights):
    """theta as far as this worker has it. Optimizers update it as they do whole tensors, to the same bits.

    `tunables` are pieces, several perhaps of one tensor: a `Scaling` given to its methods must have a
    factor for each piece (`scaling_of`). Blocks are whole rows, since the next row of a piece is elsewhere
    in its tensor.
    """

    def __init__(self, pieces: Sequence[Piece], *, kind: noise.Kind = "gaussian"):
        # not Weights.__init__, which gathers whole tensors and refuses two of one name
        if kind not in ("gaussian", "rademacher"):
            raise MezoError(
                f"noise={kind!r} cannot be made by an engine's workers, whose tensors are in pieces; choose "
                "gaussian or rademacher"
            )
        self.kind = self.entrywise = kind
        self.rank = 0
        self.pieces = list(pieces)
        self.tunables: list[Tunable] = list(self.pieces)
        self.heading = Heading(self.tunables)
        self._group = noise.Group([p.rows() for p in pieces], [p.where() for p in pieces])

    def copies(self, tensors: Sequence[torch.Tensor]) -> "Pieces":
        """Other tensors at the same places."""
        moved = [
            Piece(p.name, tensor, p.tensor_id, None, p.number, p.first, p.row_stride)
            for p, tensor in zip(self.pieces, tensors, strict=True)
        ]
        return Pieces(moved, kind=self.entrywise)

    def copy_(self, other: "Pieces") -> None:
        for mine, its in zip(self.pieces, other.pieces, strict=True):
            mine.tensor.copy_(its.tensor)

    def scaling_of(self, name: str, factors: Sequence[float]) -> Scaling:
        """factors: one for each of the model's tunables."""
        return Scaling(name, tuple(factors[p.number] for p in self.pieces))

    # ---------------------------------------------------------------- of Weights, for pieces

    def zeros(self) -> "Pieces":
        return self.copies([torch.zeros_like(p.tensor, dtype=torch.float32) for p in self.pieces])

    def _update_one_(
        self,
        n: int,
        moved: list[tuple[int, float]],
        decay: float,
        rounding: noise.Rounding,
        rounding_seed: int,
    ) -> None:
        if not moved and decay == 1:
            return
        piece = self.pieces[n]
        noise.update_(
            piece.rows(),
            piece.where(),
            [seed for seed, _ in moved],
            [a for _, a in moved],
            decay=decay,
            rounding=rounding,
            rounding_seed=rounding_seed,
            kind=self.entrywise,
        )

    def _store_(  # type: ignore[override]  # of pieces alone
        self, t: Piece, part: slice, values: torch.Tensor, rounding: noise.Rounding, rounding_seed: int
    ) -> None:
        how: noise.Rounding = "stochastic" if rounding == "matched" else rounding
        rows = t.rows()
        view = rows.view(-1)[part].view(-1, rows.shape[1])
        where = t.where(part.start // rows.shape[1])
        noise.store_(view, where, values.view_as(view), rounding=how, rounding_seed=rounding_seed)

    def add_to_(
        self,
        values: torch.Tensor,
        n: int,
        start: int,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        *,
        scalings: Sequence[Scaling | None] = (),
        decay: float = 1.0,
    ) -> None:
        """As in `Weights`; `start` and the number of values are of whole rows of the piece."""
        factors = [s.factors[n] if s else 1.0 for s in scalings] or [1.0] * len(seeds)
        moved = [(seed, a * f) for seed, a, f in zip(seeds, coefficients, factors, strict=True) if f]
        if moved or decay != 1:
            piece = self.pieces[n]
            width = piece.rows().shape[1]
            noise.update_(
                values.view(-1, width),
                piece.where(start // width),
                [seed for seed, _ in moved],
                [a for _, a in moved],
                decay=decay,
                kind=self.entrywise,
            )

    @staticmethod
    def _parts(t: Tunable, at_least: int = 1) -> Iterator[slice]:
        width = t.rows().shape[1]
        size = max(1, max(at_least, block_size(t.tensor.device)) // width) * width
        for start in range(0, t.tensor.numel(), size):
            yield slice(start, min(start + size, t.tensor.numel()))

    def perturb(self, t: Tunable, seed: int, scale: float, out: torch.Tensor, *, start: int = 0) -> None:
        assert isinstance(t, Piece)
        rows = t.rows()
        width = rows.shape[1]
        theta = rows.view(-1)[start : start + out.numel()].view(-1, width)
        where = t.where(start // width)
        noise.perturb(theta, where, seed, scale, out.view_as(theta), kind=self.entrywise)

    def write_all(self, seed: int, scale: float, out: "Pieces") -> None:
        """out = round_to_nearest(theta + scale * z(seed)) of every piece, in one kernel call a device."""
        noise.perturb_all(self._group, seed, scale, out._group.weights, kind=self.entrywise)

    def _sum_of_squares(self, t: Tunable, seed: int) -> float:
        """Of what is here, and so no part of a norm where workers hold the same piece."""
        assert isinstance(t, Piece)
        rows, columns = t.rows().shape
        return noise.sum_of_squares(
            t.where(), (rows, columns), seed, kind=self.entrywise, device=t.tensor.device
        )
