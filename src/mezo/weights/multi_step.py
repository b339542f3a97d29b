"""Many updates of theta in one pass over memory: what makes a replay as fast as its noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo import noise
from mezo.types import Scaling
from mezo.weights import rank_one
from mezo.weights.rank_one import RankOne, in_common
from mezo.weights.weights import Weights, pairs_of

_SIGNS = 1 << 23  # that are held at a time for the sums of one tensor, 4 bytes each


@dataclass(frozen=True, slots=True)
class Sum:
    """theta <- decay * theta + factor * sum_k coefficients[k] * scalings[k] * z(seeds[k]), as in `Weights.update_`."""

    seeds: Sequence[int]
    coefficients: Sequence[float]
    scalings: Sequence[Scaling | None]  # one for each seed
    factor: float
    decay: float


def update_sequence_(weights: Weights, sums: Sequence[Sum], *, rounding: noise.Rounding) -> None:
    """`weights.update_` by one sum after another: the same bits, in one pass where the kernels can.

    They can on CPUs, with noise of its own for every element, or of rank one, which is products. On a GPU a pass is
    short beside its noise; low-rank noise has kernels that add one sum.
    """
    signs = weights.kind == "rank-one"
    if any((t.low_rank is not None and not signs) or t.tensor.device.type != "cpu" for t in weights.tunables):
        for s in sums:
            how: Any = dict(scalings=s.scalings, factor=s.factor, decay=s.decay)
            weights.update_(s.seeds, s.coefficients, **how, rounding=rounding)
        return
    sums = [s for s in sums if s.seeds]
    scaled = [s for s in sums if any(s.scalings)]
    known: dict[object, list[noise.Step]] = {}
    steps: list[list[noise.Step]] = []
    for n, t in enumerate(weights.tunables):
        decays = t.tensor.dim() >= 2
        if t.low_rank is not None:
            _by_products(weights, n, sums, rounding)
            continue
        # tensors of which this is equal share their steps
        alike = (decays, *(tuple(each.factors[n] if each else 1.0 for each in s.scalings) for s in scaled))
        if alike not in known:
            known[alike] = [step for s in sums if (step := _step(n, s, s.decay if decays else 1.0))]
        steps.append(known[alike])
    weights.update_sequence_(steps, rounding)


def _by_products(weights: Weights, n: int, sums: Sequence[Sum], rounding: noise.Rounding) -> None:
    """A matrix with noise of rank one, by all sums while a block of it is in a cache."""
    low = weights.tunables[n].low_rank
    assert isinstance(low, RankOne)
    moved = [(in_common(n, s.seeds, s.coefficients, s.scalings, s.factor), s.decay, s.seeds[0]) for s in sums]
    moved = [each for each in moved if each[0].seeds or each[1] != 1]
    most = max((len(m.seeds) for m, _, _ in moved), default=0)
    at_once = max(1, _SIGNS // max(1, most * (low.rows + low.columns)))
    for start in range(0, len(moved), at_once):
        rank_one.update_(weights.tunables[n], moved[start : start + at_once], rounding)


def _step(n: int, s: Sum, decay: float) -> noise.Step | None:
    """What a sum does to the n-th tensor; None: nothing."""
    pairs = pairs_of(n, s.seeds, [s.factor * a for a in s.coefficients], s.scalings)
    if not pairs and decay == 1:
        return None
    return noise.Step([seed for seed, _ in pairs], [a for _, a in pairs], decay, s.seeds[0])
