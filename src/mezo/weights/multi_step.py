"""Many updates of theta in one pass over memory: what makes a replay as fast as its noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from mezo import noise
from mezo.types import Scaling
from mezo.weights.weights import Weights, pairs_of


@dataclass(frozen=True, slots=True)
class Sum:
    """theta <- decay * theta + sum_k coefficients[k] * scalings[k] * z(seeds[k]), as in `Weights.update_`."""

    seeds: Sequence[int]
    coefficients: Sequence[float]
    scalings: Sequence[Scaling | None]  # one for each seed
    decay: float


def update_sequence_(weights: Weights, sums: Sequence[Sum], *, rounding: noise.Rounding) -> None:
    """`weights.update_` by one sum after another: the same bits, in one pass where the kernels can.

    They can on CPUs, with noise of its own for every element. On a GPU a pass is short beside its noise; low-rank
    noise has kernels that add one sum.
    """
    if any(t.low_rank is not None or t.tensor.device.type != "cpu" for t in weights.tunables):
        for s in sums:
            weights.update_(s.seeds, s.coefficients, scalings=s.scalings, decay=s.decay, rounding=rounding)
        return
    sums = [s for s in sums if s.seeds]
    scaled = [s for s in sums if any(s.scalings)]
    known: dict[object, list[noise.Step]] = {}
    steps: list[list[noise.Step]] = []
    for n, t in enumerate(weights.tunables):
        decays = t.tensor.dim() >= 2
        # tensors of which this is equal share their steps
        alike = (decays, *(tuple(each.factors[n] if each else 1.0 for each in s.scalings) for s in scaled))
        if alike not in known:
            known[alike] = [step for s in sums if (step := _step(n, s, s.decay if decays else 1.0))]
        steps.append(known[alike])
    weights.update_sequence_(steps, rounding)


def _step(n: int, s: Sum, decay: float) -> noise.Step | None:
    """What a sum does to the n-th tensor; None: nothing."""
    pairs = pairs_of(n, s.seeds, s.coefficients, s.scalings)
    if not pairs and decay == 1:
        return None
    return noise.Step([seed for seed, _ in pairs], [a for _, a in pairs], decay, s.seeds[0])
