"""Small tensors at every probe: the factors of an adapter, gains, biases.

There are hundreds, and a kernel call for each would cost more than its noise: one call before the pass perturbs all.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import torch

from mezo import noise
from mezo.types import Probe
from mezo.util.profiling import span
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights


@dataclass(frozen=True, slots=True)
class Pair:
    """The probes along one direction: which of them stand at +scale and which at -scale."""

    at: Probe  # the one at +scale
    plus: tuple[int, ...]
    minus: tuple[int, ...]


def pair_up(probes: Sequence[Probe]) -> list[Pair]:
    """Group probes by direction, so that each direction's noise is generated once a block."""
    found: dict[Probe, tuple[list[int], list[int]]] = {}
    for i, probe in enumerate(probes):
        plus, minus = found.setdefault(replace(probe, scale=abs(probe.scale)), ([], []))
        (plus if probe.scale >= 0 else minus).append(i)
    return [Pair(at, tuple(plus), tuple(minus)) for at, (plus, minus) in found.items()]


LIMIT = 1 << 16  # elements; larger tensors go block by block through scratch memory


class SmallTensors:
    """Holds P copies of the tensors of at most `LIMIT` elements: P times an adapter, at most."""

    def __init__(self, weights: Weights, *, without: Container[int]):
        """without: ids of tensors that are read otherwise, as those with low-rank noise are."""
        numbered = [
            (n, t)
            for n, t in enumerate(weights.tunables)
            if t.tensor.numel() <= LIMIT and id(t.tensor) not in without and t.low_rank is None
        ]
        small = [t for _, t in numbered]
        self._numbers = [n for n, _ in numbered]  # in the list of tuned tensors
        self._kind: noise.Kind = weights.entrywise
        self._weights = weights
        self._place = {id(t.tensor): n for n, t in enumerate(small)}
        self._group = noise.TensorGroup([t.tensor for t in small], [t.where() for t in small])
        self._buffers: list[list[torch.Tensor]] = []

    def perturb(self, pairs: Sequence[Pair], num_probes: int) -> list[list[torch.Tensor]]:
        """All of them at every probe; valid until the next call."""
        if not self._place:
            return [[] for _ in range(num_probes)]
        while len(self._buffers) < num_probes:
            self._buffers.append([torch.empty_like(t.detach()) for t in self._group.weights])
        values = self._buffers[:num_probes]
        for pair in pairs:
            with span("noise"):
                self._perturb(pair, values)
            for same in (pair.plus, pair.minus):
                for i in same[1:]:
                    values[i] = values[same[0]]
        return values

    def of(self, tunable: Tunable) -> int | None:
        """Where in each probe's list a tensor stands; None if it is not a small one."""
        return self._place.get(id(tunable.tensor))

    def _perturb(self, pair: Pair, values: list[list[torch.Tensor]]) -> None:
        if pair.at.scale == 0:
            values[pair.plus[0]] = [t.detach() for t in self._group.weights]
        elif pair.at.scaling is not None or pair.at.drift:
            self._perturb_one_by_one(pair, values)
        elif pair.plus and pair.minus:
            plus, minus = values[pair.plus[0]], values[pair.minus[0]]
            noise.perturb_pair_all(self._group, pair.at.seed, pair.at.scale, plus, minus, kind=self._kind)
        else:
            scale, out = (
                (pair.at.scale, values[pair.plus[0]])
                if pair.plus
                else (-pair.at.scale, values[pair.minus[0]])
            )
            noise.perturb_all(self._group, pair.at.seed, scale, out, kind=self._kind)

    def _perturb_one_by_one(self, pair: Pair, values: list[list[torch.Tensor]]) -> None:
        """Where each tensor has a scale of its own, or a drift; those that do not move are not copied."""
        for same, sign in ((pair.plus, 1), (pair.minus, -1)):
            for i in same[:1]:
                values[i] = [t.detach() for t in self._group.weights]
                probe = Probe(pair.at.seed, sign * pair.at.scale, pair.at.scaling, pair.at.drift)
                for k, n in enumerate(self._numbers):
                    if probe.factor(n):
                        out = torch.empty_like(values[i][k])
                        self._weights.write(n, probe, out.view(1, -1))
                        values[i][k] = out
