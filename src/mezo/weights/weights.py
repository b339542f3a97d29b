"""The tensors being tuned: their names, their noise streams, and how an update reaches them."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from mezo import noise
from mezo.errors import MezoError
from mezo.noise.where import Where
from mezo.types import Probe, Scaling
from mezo.weights import low_rank_noise, rank_one
from mezo.weights.fingerprint import fingerprint
from mezo.weights.gradient_mean import Heading
from mezo.weights.kept_basis import KeptBasis
from mezo.weights.low_rank_noise import LowRank
from mezo.weights.rank_one import Moved, RankOne, in_common
from mezo.weights.tunable import Tunable, canonical, shard_of

ENTRYWISE: dict[low_rank_noise.Kind, noise.Kind] = {  # of tensors whose elements have noise of their own
    "gaussian": "gaussian",
    "rademacher": "rademacher",
    "low-rank": "gaussian",
    "kept-basis": "gaussian",
    "rank-one": "rademacher",
}
_FACTORED: dict[low_rank_noise.Kind, type[LowRank]] = {
    "low-rank": LowRank,
    "kept-basis": KeptBasis,
    "rank-one": RankOne,
}


class Weights:
    """theta, as a list of named tensors; everything that ever writes it goes through here."""

    def __init__(
        self,
        named: Iterable[tuple[str, torch.Tensor]],
        *,
        kind: low_rank_noise.Kind = "gaussian",
        rank: int = 2,
    ):
        """kind: of the noise; "low-rank" and "kept-basis" are of `rank` for matrices, Gaussian for the rest; "rank-one" is of signs."""
        self.kind: low_rank_noise.Kind = kind
        self.rank = rank
        # of tensors whose elements each have noise of their own
        self.entrywise: noise.Kind = ENTRYWISE[kind]
        self.tunables: list[Tunable] = []
        by_id: dict[int, str] = {}
        for raw, tensor in named:
            name = canonical(raw)
            if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                raise MezoError(
                    f"{name}: cannot tune a {tensor.dtype} tensor; load it in float32, bfloat16 or float16"
                )
            if not tensor.is_contiguous():
                raise MezoError(
                    f"{name}: cannot tune a tensor that is not contiguous; call .contiguous() on it first"
                )
            low = _FACTORED[kind].of(name, tensor, rank) if kind in _FACTORED else None
            t = Tunable(name, tensor, noise.tensor_id(name), low, shard=shard_of(tensor))
            for identity in (t.tensor_id, low.left_id, low.right_id) if low else (t.tensor_id,):
                if identity in by_id:
                    raise MezoError(
                        f"the tensors {by_id[identity]!r} and {name!r} share the noise stream {identity:#x}; rename one"
                    )
                by_id[identity] = name
            self.tunables.append(t)
        if not self.tunables:
            raise MezoError("there is nothing to tune: no trainable tensor was found")
        self.heading = Heading(self.tunables)
        own = [t for t in self.tunables if t.low_rank is None]
        self._group = noise.TensorGroup([t.tensor for t in own], [t.where() for t in own])

    @property
    def num_elements(self) -> int:
        return sum(t.tensor.numel() for t in self.tunables)

    def update_(
        self,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        *,
        scalings: Sequence[Scaling | None] = (),
        factor: float = 1.0,
        decay: float = 1.0,
        rounding: noise.Rounding = "stochastic",
    ) -> None:
        """theta <- decay * theta + factor * sum_k coefficients[k] * scalings[k] * z(seeds[k]), in one pass over memory.

        scalings: () or a Scaling (None: of ones) for each seed. `decay` spares vectors (biases and norms), as the
        paper's code does. 16-bit tensors are rounded with bits of the first seed's rounding stream.
        """
        if not seeds:
            return
        for n, t in enumerate(self.tunables):
            if any(scalings) or t.low_rank:
                moved = self._moved(n, seeds, coefficients, scalings, factor)
                self._update_one_(n, moved, decay if t.tensor.dim() >= 2 else 1.0, rounding, seeds[0])
        if any(scalings):
            return
        own = [t for t in self.tunables if t.low_rank is None]
        noise.update_all_(
            self._group,
            seeds,
            [factor * a for a in coefficients],
            decays=None if decay == 1 else [decay if t.tensor.dim() >= 2 else 1.0 for t in own],
            rounding=rounding,
            rounding_seed=seeds[0],
            kind=self.entrywise,
        )

    def update_sequence_(self, steps: Sequence[Sequence[noise.Step]], rounding: noise.Rounding) -> None:
        """theta after the n-th tensor's steps[n], one after another, in one pass; see `mezo.weights.multi_step`."""
        noise.update_sequence_(self._group, steps, rounding=rounding, kind=self.entrywise)

    def _update_one_(
        self,
        n: int,
        moved: Moved,
        decay: float,
        rounding: noise.Rounding,
        rounding_seed: int,
    ) -> None:
        """`update_` of the n-th tensor."""
        keys, factors, factor = moved
        if not keys and decay == 1:
            return
        t = self.tunables[n]
        if t.low_rank is None:
            noise.update_(
                t.rows(),
                t.where(),
                keys,
                factors,
                decay=decay,
                rounding=rounding,
                rounding_seed=rounding_seed,
                kind=self.entrywise,
            )
            return
        if isinstance(t.low_rank, RankOne):
            rank_one.update_(t, [(moved, decay, rounding_seed)], rounding)
            return
        if t.tensor.dtype == torch.float32:
            flat = t.flat() if decay == 1 else t.flat().mul_(decay)
            t.low_rank.add_(flat, 0, keys, factors, factor)
            return
        for part in self._parts(t, at_least=low_rank_noise.BLOCK):
            values = torch.mul(t.flat()[:, part].float(), decay)
            t.low_rank.add_(values, part.start, keys, factors, factor)
            t.store_(part, values, rounding, rounding_seed)

    def move_(
        self,
        change: Callable[[int, slice, torch.Tensor], object],
        *,
        decay: float = 1.0,
        rounding: noise.Rounding = "stochastic",
        rounding_seed: int = 0,
    ) -> None:
        """theta <- whatever `change` makes of decay * theta, block by block; for updates that are no sum of z.

        change: called as change(number of the tensor, elements of it in row-major order, values), it alters values,
        (1, k) float32, in place. `decay` and rounding as in `update_`; "matched" is stochastic here.
        """
        for n, part in self.blocks():
            t = self.tunables[n]
            values = torch.mul(t.flat()[:, part].float(), decay if t.tensor.dim() >= 2 else 1.0)
            change(n, part, values)
            t.store_(part, values, rounding, rounding_seed)

    def add_to_(
        self,
        values: torch.Tensor,
        n: int,
        start: int,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        *,
        scalings: Sequence[Scaling | None] = (),
        factor: float = 1.0,
        decay: float = 1.0,
    ) -> None:
        """values <- decay * values + factor * sum_k coefficients[k] * scalings[k] * z(seeds[k]), as `update_` sums it.

        values: (1, k) float32, for the elements from `start` on of the n-th tensor, in row-major order.
        """
        keys, factors, factor = self._moved(n, seeds, coefficients, scalings, factor)
        if keys or decay != 1:
            t = self.tunables[n]
            if t.low_rank is None:
                where, shape = t.part(start, values.shape[1])
                noise.update_(values.view(shape), where, keys, factors, decay=decay, kind=self.entrywise)
            else:
                t.low_rank.add_(values.mul_(decay), start, keys, factors, factor)

    def _moved(
        self,
        n: int,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        scalings: Sequence[Scaling | None],
        factor: float,
    ) -> Moved:
        """What a sum adds to the n-th tensor."""
        if isinstance(self.tunables[n].low_rank, RankOne):
            return in_common(n, seeds, coefficients, scalings, factor)
        pairs = pairs_of(n, seeds, [factor * a for a in coefficients], scalings)
        return Moved([seed for seed, _ in pairs], [a for _, a in pairs])

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """All elements in blocks that fit into a cache: (number of the tensor, elements in row-major order)."""
        for n, t in enumerate(self.tunables):
            for part in self._parts(t):
                yield n, part

    @staticmethod
    def _parts(t: Tunable, at_least: int = 1) -> Iterator[slice]:
        size = max(at_least, block_size(t.tensor.device))
        if t.by_rows:
            width = t.rows().shape[1]
            size = max(1, size // width) * width
        for start in range(0, t.tensor.numel(), size):
            yield slice(start, min(start + size, t.tensor.numel()))

    def zeros(self) -> "Weights":
        """float32 zeros of the same shapes, under the same names: they see the same noise."""
        named = [(t.name, torch.zeros_like(t.tensor.detach(), dtype=torch.float32)) for t in self.tunables]
        for t, (_, zero) in zip(self.tunables, named, strict=True):
            if t.shard is not None:
                zero.mezo_shard = t.shard  # type: ignore[attr-defined]
        return Weights(named, kind=self.kind, rank=self.rank)

    def add_noise_(self, probe: Probe) -> None:
        """theta <- the probe's point, rounded to nearest: the paper's in-place walk."""
        together = probe.scaling is None and not probe.drift
        for n, t in enumerate(self.tunables):
            if probe.factor(n) and (t.low_rank or not together):
                self.write(n, probe, t.flat())
        if together:
            noise.perturb_all(self._group, probe.seed, probe.scale, self._group.weights, kind=self.entrywise)

    def write(self, n: int, probe: Probe, out: torch.Tensor) -> None:
        """out = round_to_nearest(the probe's point) of the n-th tensor.

        out: (1, elements) of its dtype; may be theta itself.
        """
        t, scale = self.tunables[n], probe.scale_in(n)
        if not probe.drift:
            self.perturb(t, probe.seed, scale, out)
            return
        for part in self._parts(t):
            along = torch.empty(1, part.stop - part.start, device=out.device)
            self.along(n, part.start, probe.seed, probe.drift, along)
            out[:, part].copy_(along.mul_(scale).add_(t.flat()[:, part]))

    def along(self, n: int, start: int, seed: int, drift: float, out: torch.Tensor) -> None:
        """out = z, or m + z / drift where there is a drift: `Probe.factor` of it leads to the probe.

        out: (1, k) float32, for the elements from `start` on of the n-th tensor, in row-major order.
        """
        if drift:
            out.copy_(self.heading.of(n)[:, start : start + out.shape[1]])
        else:
            out.zero_()
        self.add_to_(out, n, start, [seed], [1 / drift if drift else 1.0])

    def perturb(self, t: Tunable, seed: int, scale: float, out: torch.Tensor, *, start: int = 0) -> None:
        """out = round_to_nearest(theta + scale * z) of one tensor.

        out: (1, k) of its dtype, for the elements from `start` on in row-major order; may be theta itself.
        """
        theta = t.flat()[:, start : start + out.shape[1]]
        if t.low_rank is None:
            where, shape = t.part(start, out.shape[1])
            noise.perturb(theta.view(shape), where, seed, scale, out.view(shape), kind=self.entrywise)
        else:
            t.low_rank.perturb(theta, start, seed, scale, out)

    def norm(self, seed: int, scaling: Scaling | None = None) -> float:
        """||scaling * z(seed)||_2; sums of exact integers, so the same on every device."""
        factors = scaling.factors if scaling else (1.0,) * len(self.tunables)
        total = math.fsum(
            factor**2 * self._sum_of_squares(t, seed)
            for t, factor in zip(self.tunables, factors, strict=True)
            if factor
        )
        return math.sqrt(total) / 4096

    def _sum_of_squares(self, t: Tunable, seed: int) -> float:
        # z needs no theta: a tensor may be no more than its shape, where a serving engine holds it
        device = torch.device("cpu") if t.tensor.is_meta else t.tensor.device
        if t.low_rank is not None:
            return t.low_rank.sum_of_squares(seed, device)
        where, shape = Where(t.tensor_id), (1, math.prod(t.shard.whole) if t.shard else t.tensor.numel())
        return noise.sum_of_squares(where, shape, seed, kind=self.entrywise, device=device)

    def layers(self) -> dict[str, Scaling]:
        """A partition of the tensors by layer, in order: for each layer, a scaling of 1 there and 0 elsewhere.

        A layer is what shares the first number in its name (model.layers.3); tensors outside of
        layers (embeddings, the last norm, the head) form parts by the module that holds them.
        """
        parts: dict[str, set[int]] = {}
        for n, t in enumerate(self.tunables):
            found = re.match(r".*?\.\d+(?=\.)", t.name)
            parts.setdefault(found[0] if found else t.name.rpartition(".")[0] or t.name, set()).add(n)
        everything = range(len(self.tunables))
        return {
            name: Scaling(name, tuple(float(n in members) for n in everything))
            for name, members in parts.items()
        }

    def checksum(self) -> str:
        """A fingerprint of names, shapes, dtypes and every byte: 32 hex digits."""
        return fingerprint((t.name, t.tensor) for t in self.tunables)


def pairs_of(
    n: int, seeds: Sequence[int], coefficients: Sequence[float], scalings: Sequence[Scaling | None]
) -> list[tuple[int, float]]:
    """The seeds that move the n-th tensor, with their coefficients there."""
    if not any(scalings):
        return list(zip(seeds, coefficients, strict=True))
    return [
        (seed, a * (s.factors[n] if s else 1.0))
        for seed, a, s in zip(seeds, coefficients, scalings, strict=True)
        if s is None or s.factors[n]
    ]


def block_size(device: torch.device) -> int:
    """Elements of a block: 256 kB a thread on a CPU; on a GPU so many that launching kernels does not count."""
    return 1 << 24 if device.type == "cuda" else torch.get_num_threads() << 16
