"""Muon in a kept basis: momentum of a thin matrix, made orthogonal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mezo.errors import MezoError
from mezo.noise.seeds import basis_of
from mezo.optimizers import newton_schulz
from mezo.optimizers.base import Optimizer, add_gradient_, first_seed, sum_of_z
from mezo.types import Update
from mezo.weights.kept_basis import KeptBasis
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights, pairs_of

WIDEST = 128  # shorter side of a matrix without a basis: the iteration takes its cube


@dataclass
class ThinMoments:
    """The state: the momentum of each tensor, and the basis that it is in."""

    of: list[torch.Tensor]  # (r, columns), or of a tensor without a basis (rows, columns); float32
    basis: int = 0
    grams: dict[int, torch.Tensor] = field(
        default_factory=dict
    )  # of the basis, by tensor; made again from it


@dataclass(frozen=True)
class Muon(Optimizer):
    """M <- beta1 M + (1 - beta1) mean_k g_k right_k;  theta <- (1 - lr weight_decay) theta - lr orthogonal(basis^T M).

    With noise `kept-basis` the estimated gradient of a matrix is basis^T times a mean of `right` (r, columns), so the
    momentum is one of r rows, and Newton-Schulz iteration (five rounds of Muon's) is done on r x r matrices
    (`mezo.optimizers.newton_schulz`), to the same bits on every device. orthogonal(D) has about equal singular values,
    and is scaled to a root mean square of 1: every tensor moves by lr an element in every step, whatever the slopes are.
    So the rate has to fall over the run. A vector moves along its momentum, of the same length.

    A new basis begins with no momentum. Matrices that a basis leaves out, with a side shorter than 32, and all matrices
    of Gaussian or Rademacher noise, are made orthogonal as they are; a shorter side above 128 is refused there.

    Departures from ZO-Muon: momentum (it has none), vectors (it moves them by plain SGD), the root mean square (its
    matrices move by lr times an orthogonal matrix), and a Gaussian basis, whose inner products the iteration takes into
    account, in place of an orthonormal one. From ZO-MOPI: no power iteration; the basis is random.

    Args:
        beta1: how much of the momentum a step keeps.

    Raises:
        MezoError: by `init`, weights with other noise or too wide; by a step, directions of several bases.

    Reference: ZO-Muon, arXiv:2602.17155; ZO-MOPI, arXiv:2605.09034; Jordan et al. 2024 (Muon).
    Example:
        >>> import torch
        >>> from mezo.optimizers.muon import Muon
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), Muon()
        >>> state = optimizer.apply_(weights, optimizer.init(weights), Update(0, 0.1, (Direction(7, 1.0),), 1))
        >>> round(float(weights.tunables[0].tensor.square().mean().sqrt()), 6)
        0.1
    """

    beta1: float = 0.9

    def init(self, weights: Weights) -> ThinMoments:
        return ThinMoments([torch.zeros(_shape(t), device=t.tensor.device) for t in weights.tunables])

    def step_(self, weights: Weights, state: ThinMoments, update: Update) -> ThinMoments:
        state = self._begun(weights, state, update)
        for n, (t, m) in enumerate(zip(weights.tunables, state.of, strict=True)):
            m.mul_(self.beta1)
            if isinstance(t.low_rank, KeptBasis):
                for seed, factor in _coefficients(n, update, 1 - self.beta1):
                    m.add_(t.low_rank.right(seed, m.device).mul_(factor))
            else:
                add_gradient_(m.view(1, -1), weights, n, 0, update, 1 - self.beta1)
        moves = _orthogonal(weights, state, -update.learning_rate)

        def along(n: int, part: slice, values: torch.Tensor) -> None:
            low = weights.tunables[n].low_rank
            if isinstance(low, KeptBasis):
                low.add_along_(values, part.start, state.basis, moves[n])
            else:
                values.add_(moves[n].view(1, -1)[:, part])

        weights.move_(
            along, decay=self.decay(update), rounding=self.rounding, rounding_seed=first_seed(update)
        )
        return state

    def pack(self, state: ThinMoments) -> Any:
        return {"basis": state.basis, "momenta": list(state.of)}

    def unpack(self, weights: Weights, packed: Any) -> ThinMoments:
        state, found = self.init(weights), packed["momenta"]
        shapes = [tuple(m.shape) for m in state.of], [tuple(m.shape) for m in found]
        if shapes[0] != shapes[1]:
            raise MezoError(
                f"the optimizer's state has momenta of shapes {shapes[1]}, expected {shapes[0]}; it belongs to other weights"
            )
        for m, values in zip(state.of, found, strict=True):
            m.copy_(values)
        return ThinMoments(state.of, packed["basis"])

    @staticmethod
    def _begun(weights: Weights, state: ThinMoments, update: Update) -> ThinMoments:
        """The state, in the basis of the update: without momentum, if that is a new one."""
        kept = [isinstance(t.low_rank, KeptBasis) for t in weights.tunables]
        bases = {basis_of(d.seed) for d in update.directions} if any(kept) else set()
        if len(bases) > 1:
            raise MezoError(
                f"step {update.step}: expected directions of one basis for optimizer muon, found {len(bases)} bases; "
                "a program that makes its own seeds gives those of a step the same upper half"
            )
        if not bases or bases == {state.basis}:
            return state
        for m, is_kept in zip(state.of, kept, strict=True):
            if is_kept:
                m.zero_()
        return ThinMoments(state.of, bases.pop())


def _shape(t: Tunable) -> tuple[int, int]:
    """Of a tensor's momentum. Raises MezoError where it is not one that can be made orthogonal."""
    rows, columns = t.rows().shape
    if isinstance(t.low_rank, KeptBasis):
        return t.low_rank.rank, columns
    if t.low_rank is not None:
        raise MezoError(
            "optimizer muon needs noise of one basis, and here each direction has its own: choose noise=kept-basis"
        )
    if min(rows, columns) > WIDEST:
        raise MezoError(
            f"{t.name}: optimizer muon makes a matrix without a basis orthogonal up to a shorter side of {WIDEST}, found "
            f"{rows} x {columns}; choose noise=kept-basis"
        )
    return rows, columns


def _coefficients(n: int, update: Update, factor: float) -> list[tuple[int, float]]:
    """The seeds that move the n-th tensor, and factor times their shares of the estimated gradient."""
    seeds, slopes, scalings, share = sum_of_z(update, factor)
    return pairs_of(n, seeds, [share * slope for slope in slopes], scalings)


def _orthogonal(weights: Weights, state: ThinMoments, factor: float) -> list[torch.Tensor]:
    """factor times what each tensor's momentum becomes: what basis^T, if there is one, is multiplied by."""
    thin = [m.t() if len(m) > m.shape[1] else m for m in state.of]
    bits = [newton_schulz.bits_for(m.shape[1]) for m in thin]
    largest = newton_schulz.largest_of(thin)
    whole = [newton_schulz.whole(m, top, b) for m, top, b in zip(thin, largest, bits, strict=True)]
    found: list[torch.Tensor] = list(thin)
    for alike in _alike(weights, whole):
        of_basis = None
        if isinstance(weights.tunables[alike[0]].low_rank, KeptBasis):
            of_basis = torch.stack([_gram_of_basis(weights.tunables[n], n, state) for n in alike]).numpy()
        grams = torch.stack([newton_schulz.gram_of(whole[n]) for n in alike]).cpu().numpy()
        for n, s in zip(alike, newton_schulz.orthogonalising(np.array(grams), of_basis), strict=True):
            t = weights.tunables[n]
            scale = math.sqrt(t.tensor.numel() / len(s))
            if isinstance(t.low_rank, KeptBasis):  # S is for a basis in units of 2^-12
                scale *= newton_schulz.UNITS
            found[n] = newton_schulz.times(s, whole[n], bits[n], factor * scale)
    return [(x.t() if len(m) > m.shape[1] else x).contiguous() for m, x in zip(state.of, found, strict=True)]


def _alike(weights: Weights, thin: list[torch.Tensor]) -> Iterator[list[int]]:
    """The numbers of the tensors whose iterations are of one size, with a basis or without, on one device."""
    groups: dict[Any, list[int]] = {}
    for n, (t, m) in enumerate(zip(weights.tunables, thin, strict=True)):
        groups.setdefault((len(m), t.low_rank is None, m.device), []).append(n)
    yield from groups.values()


def _gram_of_basis(t: Tunable, n: int, state: ThinMoments) -> torch.Tensor:
    if n not in state.grams:
        assert isinstance(t.low_rank, KeptBasis)
        state.grams[n] = newton_schulz.gram_of_basis(t.low_rank.basis(state.basis, t.tensor.device)).cpu()
    return state.grams[n]
