"""One tuned tensor: its name, its noise stream, and its place in a larger tensor that is cut."""

from dataclasses import dataclass, field

import torch

from mezo import noise
from mezo.noise.where import Where
from mezo.weights.low_rank_noise import LowRank


@dataclass(frozen=True, slots=True)
class Shard:
    """Which elements of a whole matrix or vector a process holds, where a model is cut (`parallel.tensor_parallel`)."""

    first: int  # element of the whole that its first one is
    row_stride: int | None  # elements of the whole from one of its rows to the next; None: of a vector
    whole: tuple[int, ...]  # shape


def shard_of(tensor: torch.Tensor) -> Shard | None:
    """What a tensor is a part of, where `parallel.tensor_parallel` has cut it."""
    return getattr(tensor, "mezo_shard", None)


@dataclass(frozen=True)
class Tunable:
    """One tensor and the name that selects its noise. Tied weights appear once."""

    name: str  # canonical: the same whatever wraps the model
    tensor: torch.Tensor
    tensor_id: int
    low_rank: LowRank | None = None  # None: every element has noise of its own
    shard: Shard | None = field(default=None, kw_only=True)  # None: the tensor is whole

    def where(self, row: int = 0) -> Where:
        """The place of `rows()` from `row` on in the whole tensor."""
        if self.shard is None:
            return Where(self.tensor_id, row * self.rows().shape[1])
        return Where(
            self.tensor_id, self.shard.first + row * (self.shard.row_stride or 0), self.shard.row_stride
        )

    @property
    def by_rows(self) -> bool:
        """Whether the next row is elsewhere in the whole tensor, so that a block of elements is whole rows."""
        return self.shard is not None and self.shard.row_stride is not None

    def part(self, start: int, count: int) -> tuple[Where, tuple[int, int]]:
        """The place of `count` elements from `start` on in row-major order, and their shape for the kernels."""
        if not self.by_rows:
            first = 0 if self.shard is None else self.shard.first
            return Where(self.tensor_id, first + start), (1, count)
        width = self.rows().shape[1]
        return self.where(start // width), (count // width, width)

    def rows(self) -> torch.Tensor:
        """The tensor as (rows, columns), sharing memory: the last dimension is the columns."""
        data = self.tensor.detach()
        return data.view(1, -1) if data.dim() < 2 else data.view(-1, data.shape[-1])

    def store_(self, part: slice, values: torch.Tensor, rounding: noise.Rounding, rounding_seed: int) -> None:
        """Its elements `part` <- values, (1, k) float32; what is no sum of Gaussian z cannot be matched."""
        how: noise.Rounding = "stochastic" if rounding == "matched" else rounding
        where, shape = self.part(part.start, values.shape[1])
        noise.store_(
            self.flat()[:, part].view(shape),
            where,
            values.view(shape),
            rounding=how,
            rounding_seed=rounding_seed,
        )

    def flat(self) -> torch.Tensor:
        return self.tensor.detach().view(1, -1)


def canonical(name: str) -> str:
    """A parameter's name without the wrappers that peft, torch.compile and the like put around it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".default.", ".")
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")  # torch.compile, FSDP, activation checkpointing
    return name
