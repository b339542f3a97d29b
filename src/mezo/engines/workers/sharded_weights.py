"""`Weights` whose tensors are in pieces, as a worker of a serving engine holds them."""

from collections.abc import Sequence

import torch

from mezo import noise
from mezo.engines.workers.shard_map import Piece
from mezo.errors import MezoError
from mezo.types import Scaling
from mezo.weights.gradient_mean import Heading
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights


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
        self._group = noise.TensorGroup([p.rows() for p in pieces], [p.where() for p in pieces])

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
