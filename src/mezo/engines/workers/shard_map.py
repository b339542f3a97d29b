"""From the parameters of a serving engine's worker to the elements of the model's own tensors.

An engine fuses q, k, v and gate, up, gives every worker some rows or columns, repeats key and value heads, and pads
the vocabulary. Noise belongs to elements of the tensors as transformers names them. So a worker's theta is a list of
pieces: a rectangle of one parameter, and its place in the whole tensor. `mezo.engines.workers.fused_layers` asks a
layer which rows it holds; the shapes tell whether its columns are cut. What does not fit is an error that names the
parameter, and `mezo.engines.workers.verify` compares the values with the checkpoint's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch

from mezo import noise
from mezo.engines.workers.fused_layers import ShardRows, alone, rank_and_size, side_by_side
from mezo.errors import MezoError, near
from mezo.noise.where import Where
from mezo.types import Scaling
from mezo.weights import low_rank_noise
from mezo.weights.gradient_mean import Heading
from mezo.weights.rank_one import RankOne
from mezo.weights.tunable import Tunable, canonical
from mezo.weights.weights import ENTRYWISE, Weights

Shape = tuple[int, ...]

# what a piece of a tensor can make its own part of: others need sums that are rounded as the whole tensor's
KINDS: tuple[low_rank_noise.Kind, ...] = ("gaussian", "rademacher", "rank-one")

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True)
class Piece(Tunable):
    """A rectangle of a tuned tensor, in the memory of an engine. `name` is the whole tensor's.

    tensor: (rows, columns), or (n,) of a vector, contiguous; of more dimensions only if it is whole.
    """

    number: int = 0  # of the whole tensor, in the order of the model's tunables
    first: int = 0  # element of the whole tensor that its first one is
    row_stride: int = 1  # elements of the whole tensor from one of its rows to the next

    @property
    def by_rows(self) -> bool:
        return True

    def rank_one(self) -> RankOne | None:
        """Its part of the whole tensor's noise of rank one; None for one of a vector."""
        low = RankOne.of(self.name, self.tensor)
        if low is None:
            return None
        row, column = divmod(self.first, self.row_stride)
        return replace(low, first_row=row, first_column=column)

    def where(self, row: int = 0) -> Where:
        """The place of its rows from `row` on."""
        return Where(self.tensor_id, self.first + row * self.row_stride, self.row_stride)


@dataclass(frozen=True)
class Logical:
    """The model's own tensors, as transformers calls them."""

    tuned: Mapping[str, Shape]  # in the order of the model's tunables
    frozen: Mapping[str, Shape] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)  # another name of a tensor -> its name above

    def name(self, name: str) -> str:
        return self.tied.get(name, name)

    def shape(self, name: str) -> Shape | None:
        found = self.tuned.get(name, self.frozen.get(name))
        return None if found is None else tuple(found)

    def names(self) -> list[str]:
        return [*self.tuned, *self.frozen]


def find_pieces(model: torch.nn.Module, logical: Logical) -> list[Piece]:
    """The pieces of the tuned tensors in one worker's model, in the order of the tensors.

    Raises MezoError for a parameter that is empty, quantised, not contiguous, unknown or cut in an unknown way; and
    for a tensor of which this worker has nothing.
    """
    numbers = {name: number for number, name in enumerate(logical.tuned)}
    fused = {**FUSED, **(getattr(model, "packed_modules_mapping", None) or {})}
    pieces: list[Piece] = []
    found: set[str] = set()
    for full, module, parameter in _parameters(model):
        _check(full, parameter)
        for name, rows in _contents(full, module, parameter, logical, fused):
            found.add(name)
            shape = logical.shape(name)
            assert shape is not None  # `_contents` names known tensors alone
            view, first, stride = _cut(full, name, shape, rows, module, parameter)
            if name in numbers and view.numel():
                pieces.append(Piece(name, view, noise.tensor_id(name), None, numbers[name], first, stride))
    missing = [name for name in logical.names() if name not in found]
    if missing:
        raise MezoError(
            f"the engine's model has no parameter for {missing[0]} ({len(missing)} of {len(logical.names())} "
            "tensors), so it would not be tuned: this model cannot be tuned in full on this engine"
        )
    return sorted(pieces, key=lambda piece: (piece.number, piece.first))


def _parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, torch.Tensor]]:
    """(canonical name, its module, values), tied ones once.

    A layer that an engine has wrapped for adapters comes as itself: it says which rows its parameters hold. SGLang's
    wrapper has the same parameters under its own name.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        inside = getattr(module, "base_layer", None)
        wrapped = (
            {id(p) for p in inside._parameters.values()} if isinstance(inside, torch.nn.Module) else set()
        )
        for own, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen | wrapped:
                seen.add(id(parameter))
                yield canonical(f"{path}.{own}" if path else own), module, parameter.detach()


def _check(full: str, parameter: torch.Tensor) -> None:
    if parameter.numel() == 0:
        raise MezoError(
            f"{full}: the engine has emptied this parameter, having packed its values for a kernel, so it cannot "
            "be perturbed; load the model with packing turned off (in vLLM on a CPU, worker_extension_cls="
            "'mezo.engines.workers.vllm.MezoWorker' does)"
        )
    if parameter.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise MezoError(
            f"{full}: cannot tune a model with {parameter.dtype} parameters; load it unquantised, in float32, "
            "bfloat16 or float16"
        )
    if not parameter.is_contiguous():
        raise MezoError(
            f"{full}: expected rows one after another in memory, found shape {tuple(parameter.shape)} with strides "
            f"{parameter.stride()}: this model cannot be tuned in full on this engine"
        )


def _contents(
    full: str, module: Any, parameter: torch.Tensor, logical: Logical, fused: Mapping[str, Sequence[str]]
) -> list[tuple[str, ShardRows]]:
    """(tensor, its rows of the parameter) for all tensors in it; `ShardRows.total` is of the named tensor."""
    count = parameter.shape[0] if parameter.dim() else 1
    path, _, own = full.rpartition(".")
    parts = side_by_side(module)
    if parts and parts[-1].end != count:
        raise MezoError(
            f"{full}: its layer tells of {parts[-1].end} rows, the parameter has {count}: this model cannot be "
            "tuned in full on this engine"
        )
    whole = logical.name(full)
    if logical.shape(whole) is not None:
        if not parts:
            return [(whole, alone(module, count))]
        starts = [0, *accumulate(part.total or 0 for part in parts)]  # fused in the model itself too
        return [
            (whole, ShardRows(part.begin, part.end, start + (part.first or 0)))
            for start, part in zip(starts, parts, strict=False)
        ]
    parent, _, last = path.rpartition(".")
    names = [f"{parent}.{name}.{own}".lstrip(".") for name in fused.get(last, ())] if parts else [full]
    names = [logical.name(name) for name in names]
    unknown = [name for name in names if logical.shape(name) is None]
    if unknown or len(names) != len(parts):
        name = unknown[0] if unknown else full
        raise MezoError(
            f"the engine's {full} is not one of the model's tensors{near(name, logical.names())[:300]}"
        )
    return list(zip(names, parts, strict=True))


def _cut(
    full: str, name: str, shape: Shape, rows: ShardRows, module: Any, parameter: torch.Tensor
) -> tuple[torch.Tensor, int, int]:
    """(the rows as a view, the element of the whole tensor they begin with, elements from row to row)."""
    if parameter.shape == shape and rows.first in (None, 0) and rows.total in (None, *shape[:1]):
        return parameter[rows.begin : rows.end] if shape else parameter, 0, shape[-1] if shape else 1
    rank, size = rank_and_size(module)
    view = parameter[rows.begin : rows.end] if parameter.dim() else parameter
    fits = view.dim() == len(shape) in (1, 2) and rows.total in (None, shape[0])
    if fits:
        first = _share(len(view), shape[0], rank, size) if rows.first is None else rows.first
        column = 0 if view.dim() == 1 else _share(view.shape[1], shape[1], rank, size)
        if first is not None and column is not None and first + len(view) <= shape[0]:
            return view, first * math.prod(shape[1:]) + column, shape[-1]
    raise MezoError(
        f"{full}: rows {rows.begin} to {rows.end} of the engine's {tuple(parameter.shape)} are no known share of "
        f"{name} {shape} for worker {rank} of {size}: this model cannot be tuned in full on this engine"
    )


def _share(here: int, total: int, rank: int, size: int) -> int | None:
    """Where this worker's equal share begins; 0 if it has everything, None if it has something else."""
    if here == total:
        return 0
    return rank * here if here * size == total else None


class Pieces(Weights):
    """`Weights` of the pieces that this worker has. Optimizers update it as they do whole tensors, to the same bits.

    A `Scaling` given to its methods has a factor for each piece (`scaling_of`). Blocks are whole rows, since the next
    row of a piece is elsewhere in its tensor.
    """

    def __init__(self, pieces: Sequence[Piece], *, kind: low_rank_noise.Kind = "gaussian"):
        # not Weights.__init__, which gathers whole tensors and refuses two of one name
        if kind not in KINDS:
            raise MezoError(
                f"noise={kind!r} cannot be made by an engine's workers, whose tensors are in pieces; choose "
                f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
            )
        self.kind, self.entrywise = kind, ENTRYWISE[kind]
        self.rank = 0
        self.pieces = [replace(p, low_rank=p.rank_one() if kind == "rank-one" else None) for p in pieces]
        self.tunables: list[Tunable] = list(self.pieces)
        self.heading = Heading(self.tunables)
        own = [p for p in self.pieces if p.low_rank is None]
        self._group = noise.TensorGroup([p.rows() for p in own], [p.where() for p in own])

    def copies(self, tensors: Sequence[torch.Tensor]) -> "Pieces":
        """Other tensors at the same places."""
        moved = [
            Piece(p.name, tensor, p.tensor_id, None, p.number, p.first, p.row_stride)
            for p, tensor in zip(self.pieces, tensors, strict=True)
        ]
        return Pieces(moved, kind=self.kind)

    def copy_(self, other: "Pieces") -> None:
        for mine, its in zip(self.pieces, other.pieces, strict=True):
            mine.tensor.copy_(its.tensor)

    def scaling_of(self, name: str, factors: Sequence[float]) -> Scaling:
        """factors: one for each of the model's tunables."""
        return Scaling(name, tuple(factors[p.number] for p in self.pieces))

    # ---------------------------------------------------------------- of Weights, for pieces

    def zeros(self) -> "Pieces":
        return self.copies([torch.zeros_like(p.tensor, dtype=torch.float32) for p in self.pieces])

    def write_all(self, seed: int, scale: float, out: "Pieces") -> None:
        """out = round_to_nearest(theta + scale * z(seed)) of every piece; in one kernel call a device, products aside."""
        for mine, its in zip(self.pieces, out.pieces, strict=True):
            if mine.low_rank is not None:
                mine.low_rank.perturb(mine.flat(), 0, seed, scale, its.flat())
        noise.perturb_all(self._group, seed, scale, out._group.weights, kind=self.entrywise)

    def _sum_of_squares(self, t: Tunable, seed: int) -> float:
        """Of what is here, and so no part of a norm where workers hold the same piece."""
        assert isinstance(t, Piece)
        if t.low_rank is not None:
            return t.low_rank.sum_of_squares(seed, t.tensor.device)
        rows, columns = t.rows().shape
        return noise.sum_of_squares(
            t.where(), (rows, columns), seed, kind=self.entrywise, device=t.tensor.device
        )
