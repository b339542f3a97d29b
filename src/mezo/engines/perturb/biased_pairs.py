"""Probes along directions that drift: theta +- scale * (m + z / drift), for the modules of a pass."""

from typing import NamedTuple

import torch

from mezo import noise
from mezo.engines.perturb.pairs import Pair
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.perturb.scratch import Scratch
from mezo.noise.where import Where
from mezo.weights.weights import Weights


class BiasedOutputs(NamedTuple):
    """Where a part of a tensor goes at both probes, and which part it is."""

    plus: torch.Tensor
    minus: torch.Tensor
    start: int = 0  # element of the tensor that the part begins with
    rows: torch.Tensor | None = None  # or these rows of a table


def perturb_biased_pair(
    weights: Weights, n: int, pair: Pair, theta: torch.Tensor, into: BiasedOutputs, scratch: Scratch
) -> None:
    """plus, minus = a part of the n-th tensor at both probes, to the bits of `Weights.write`.

    Summed in float32, and rounded to the tensor's type once. theta: that part, (rows, columns).
    """
    m = weights.heading.of(n)
    with scratch.take(tuple(theta.shape), m) as step, knowing():
        if into.rows is None:
            weights.along(n, into.start, pair.at.seed, pair.at.drift, step.view(1, -1))
        else:
            t = weights.tunables[n]
            table, where = m.view(t.rows().shape), Where(t.tensor_id)
            noise.perturb(
                table, where, pair.at.seed, 1 / pair.at.drift, step, rows=into.rows, kind=weights.entrywise
            )
        step.mul_(pair.at.scale_in(n))
        torch.add(theta, step, out=into.plus)
        torch.sub(theta, step, out=into.minus)
