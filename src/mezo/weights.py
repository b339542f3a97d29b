"""The tensors being tuned: their names, their noise streams, and how an update reaches them."""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import torch

from mezo import noise
from mezo.errors import MezoError
from mezo.noise import Where


@dataclass(frozen=True)
class Tunable:
    """One tensor and the name that selects its noise. Tied weights appear once."""

    name: str  # canonical: the same whatever wraps the model
    tensor: torch.Tensor
    tensor_id: int

    def rows(self) -> torch.Tensor:
        """The tensor as (rows, columns), sharing memory: the last dimension is the columns."""
        data = self.tensor.detach()
        return data.view(1, -1) if data.dim() < 2 else data.view(-1, data.shape[-1])

    def flat(self) -> torch.Tensor:
        return self.tensor.detach().view(1, -1)


def canonical(name: str) -> str:
    """A parameter's name without the wrappers that peft puts around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".default.", ".")


class Weights:
    """theta, as a list of named tensors; everything that ever writes it goes through here."""

    def __init__(self, named: Iterable[tuple[str, torch.Tensor]], *, kind: noise.Kind = "gaussian"):
        self.kind: noise.Kind = kind
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
            identity = noise.tensor_id(name)
            if identity in by_id:
                raise MezoError(
                    f"the tensors {by_id[identity]!r} and {name!r} share the noise stream {identity:#x}; rename one"
                )
            by_id[identity] = name
            self.tunables.append(Tunable(name, tensor, identity))
        if not self.tunables:
            raise MezoError("there is nothing to tune: no trainable tensor was found")
        self._group = noise.Group(
            [t.tensor for t in self.tunables], [Where(t.tensor_id) for t in self.tunables]
        )

    @property
    def num_elements(self) -> int:
        return sum(t.tensor.numel() for t in self.tunables)

    def update_(
        self,
        seeds: Sequence[int],
        coefficients: Sequence[float],
        *,
        decay: float = 1.0,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
    ) -> None:
        """theta <- decay * theta + sum_k coefficients[k] * z(seeds[k]), in one pass over memory.

        `decay` spares vectors (biases and norms), as the paper's code does. 16-bit tensors are
        rounded with bits drawn from the first seed's own rounding stream.
        """
        noise.update_all_(
            self._group,
            seeds,
            coefficients,
            decays=None if decay == 1 else [decay if t.tensor.dim() >= 2 else 1.0 for t in self.tunables],
            rounding=rounding,
            rounding_seed=seeds[0],
            kind=self.kind,
        )

    def add_noise_(self, seed: int, scale: float) -> None:
        """theta <- theta + scale * z(seed), rounded to nearest: the paper's in-place walk."""
        noise.perturb_all(self._group, seed, scale, self._group.weights, kind=self.kind)

    def norm(self, seed: int) -> float:
        """||z(seed)||_2 over all tunable elements; an exact sum, so the same on every device."""
        total = sum(
            noise.sum_of_squares(
                Where(t.tensor_id), (1, t.tensor.numel()), seed, kind=self.kind, device=t.tensor.device
            )
            for t in self.tunables
        )
        return math.sqrt(total) / 4096

    def checksum(self) -> str:
        """A fingerprint of names, shapes, dtypes and every byte: 32 hex digits."""
        return fingerprint((t.name, t.tensor) for t in self.tunables)


def fingerprint(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A fingerprint of tensors by name, shape, dtype and content, in the order of their names."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {zlib.crc32(raw.data):08x}\n".encode())
    return digest.hexdigest()
