"""Probes along directions that drift: theta +- scale * (m + z / drift), for the modules of a pass."""

import torch

from mezo import noise
from mezo.engines.perturb.pairs import Pair
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.perturb.scratch import Scratch
from mezo.noise.where import Where
from mezo.weights.weights import Weights


def perturb_pair(
    weights: Weights,
    n: int,
    pair: Pair,
    theta: torch.Tensor,
    plus: torch.Tensor,
    minus: torch.Tensor,
    scratch: Scratch,
    *,
    start: int = 0,
    rows: torch.Tensor | None = None,
) -> None:
    """plus, minus = a part of the n-th tensor at both probes, to the bits of `Weights.write`.

    Summed in float32, and rounded to the tensor's type once. theta: that part, (rows, columns), from
    element `start` on; or these `rows` of a table.
    """
    m = weights.heading.of(n)
    with scratch.take(tuple(theta.shape), m) as step, knowing():
        if rows is None:
            weights.along(n, start, pair.seed, pair.drift, step.view(1, -1))
        else:
            t = weights.tunables[n]
            table, where = m.view(t.rows().shape), Where(t.tensor_id)
            noise.perturb(table, where, pair.seed, 1 / pair.drift, step, rows=rows, kind=weights.entrywise)
        step.mul_(pair.scale_of(n))
        torch.add(theta, step, out=plus)
        torch.sub(theta, step, out=minus)
