"""Newton-Schulz iteration for thin matrices, to the same bits on every device.

What is made orthogonal is D = basis^T M, of a thin M (r, n) and a basis (r, m), or M itself. Every iterate is
basis^T S M with an r x r matrix S, so the iteration is one of r x r matrices:

    X <- a X + b X X^T X + c (X X^T)^2 X        is        S <- F S,  C <- F F C,  F = a I + b C + c C^2,

C being B A over its trace, A and B the inner products of the rows of the basis and of M. Products of long matrices are
of integers, few enough bits that float64 holds every partial sum: they are exact, in whatever order. The small ones are
summed one term after another by NumPy's own multiplication and addition, each rounded by itself.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Muon's: steep at 0, singular values then stay within 0.7 to 1.2
ROUNDS = 5
_EXACT = 53  # bits of integers that float64 holds
UNITS = 1 << 12  # in 1, of a basis; a normal number of the noise is below 5

Matrices = NDArray[np.float64]  # (matrices, r, r)


def bits_for(count: int) -> int:
    """Of integers of which float64 holds every sum of `count` products of two."""
    return (_EXACT - max(1, (count - 1).bit_length())) // 2


def whole(values: torch.Tensor, largest: float, bits: int) -> torch.Tensor:
    """Integers of at most 2^bits in float64: the values, of which `largest` is the largest magnitude, over a power of two."""
    return torch.mul(values.double(), math.ldexp(1.0, bits - math.frexp(largest)[1])).round_()


def largest_of(tensors: Sequence[torch.Tensor]) -> list[float]:
    """The largest magnitude in each; one wait for a GPU."""
    return torch.stack([t.abs().amax() for t in tensors]).tolist() if tensors else []


def gram_of(values: torch.Tensor) -> torch.Tensor:
    """The inner products of all pairs of rows of integers (r, n), as `bits_for` n has them: exact."""
    return values @ values.t()


def gram_of_basis(basis: torch.Tensor) -> torch.Tensor:
    """The inner products of all pairs of rows of a normal (r, m), rounded to 12 bits after the point: exact integers."""
    return gram_of(basis.double().mul_(UNITS).round_())


def orthogonalising(of_m: Matrices, of_basis: Matrices | None = None) -> Matrices:
    """S for each pair of Gram matrices: basis^T S M has about equal singular values, and the Frobenius norm sqrt(r).

    of_basis: None where M itself is made orthogonal. S is 0 where M is.
    """
    rank = of_m.shape[-1]
    c = of_m if of_basis is None else _product(of_m, of_basis)
    square = _traces(c)  # ||D||_F^2
    a, b, e = COEFFICIENTS
    c = c / np.where(square > 0, square, 1.0)
    s = np.broadcast_to(np.eye(rank), c.shape)
    for _ in range(ROUNDS):
        f = e * _product(c, c)
        f += b * c
        f += a * np.eye(rank)
        s = _product(f, s)
        c = _product(_product(f, f), c)
    length = _traces(c) * square
    return s * np.where(length > 0, np.sqrt(rank / np.where(length > 0, length, 1.0)), 0.0)


def times(s: NDArray[np.float64], q: torch.Tensor, bits: int, factor: float) -> torch.Tensor:
    """factor * S @ q in float32, of integers q (r, n) of at most 2^bits.

    S is rounded to integers times a power of two, so that the product is exact; then it is rounded once.
    """
    room = _EXACT - bits - max(1, (len(s) - 1).bit_length())
    e = math.frexp(float(np.abs(s).max()))[1] - room
    left = torch.from_numpy(np.rint(np.ldexp(s, -e))).to(q.device)
    return torch.mul(left @ q, math.ldexp(factor, e)).float()


def _product(x: Matrices, y: Matrices) -> Matrices:
    """x @ y, one term after another: BLAS adds in an order of its own on each processor."""
    out = x[:, :, 0, None] * y[:, 0, None, :]
    for k in range(1, x.shape[2]):
        out += x[:, :, k, None] * y[:, k, None, :]
    return out


def _traces(x: Matrices) -> NDArray[np.float64]:
    """(matrices, 1, 1); sums rounded once, so in any order."""
    return np.array([math.fsum(row) for row in np.diagonal(x, axis1=1, axis2=2).tolist()])[:, None, None]
