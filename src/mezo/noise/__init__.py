"""Noise that is a function of (seed, tensor, global element index), the same bits on every device.

`spec` defines the stream, written for reading; the `cpu_*` files (Numba) and `gpu_*` (Triton) make it fast. A weight
is a 2-D view (rows, columns) with contiguous columns, and a `Where`: which elements of the whole, unsharded tensor it
holds. So every cut of a tensor sees the same noise. Tied weights share one tensor id.

Every operation raises MezoError for a wrong shape, stride, dtype (float32, bfloat16, float16) or output, and for
unknown names of noise, rounding or device. Only the backend of the tensor's device is imported.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from mezo.errors import MezoError, near
from mezo.noise.group import Step, TensorGroup
from mezo.noise.seeds import INITIALISATION, PERTURBATION, derive_seed, tensor_id
from mezo.noise.where import Where

if TYPE_CHECKING:
    import torch

__all__ = [
    "INITIALISATION",
    "PERTURBATION",
    "Kind",
    "Rounding",
    "Step",
    "TensorGroup",
    "Where",
    "announce",
    "announced",
    "derive_seed",
    "fill_",
    "perturb",
    "perturb_all",
    "perturb_pair",
    "perturb_pair_all",
    "store_",
    "sum_of_squares",
    "tensor_id",
    "update_",
    "update_all_",
    "update_sequence_",
    "vectors",
]

Kind = Literal["gaussian", "rademacher"]
Rounding = Literal["matched", "stochastic", "nearest"]


def _say(text: str) -> None:
    print(f"mezo: {text}", file=sys.stderr, flush=True)


announce: Callable[[str], object] = _say  # called once, when a first use compiles; replace it freely


@contextmanager
def announced(note: Callable[[str], object]) -> Iterator[None]:
    """Inside the block, `note` is called for every kernel that compiles: a run's output may be closed after it."""
    global announce
    before, announce = announce, note
    try:
        yield
    finally:
        announce = before


def fill_(
    out: "torch.Tensor", where: Where, seed: int, *, kind: Kind = "gaussian", purpose: int = PERTURBATION
) -> None:
    """out (rows, columns), float32 = z."""
    _backend(out.device.type).fill_(out, where, seed, kind, purpose)


def vectors(
    tensor_id: int,
    seeds: Sequence[int],
    start: int,
    count: int,
    device: "torch.device | str",
    *,
    kind: Kind = "rademacher",
) -> "torch.Tensor":
    """(seeds, count) float32: z of the elements from `start` on of a tensor, a row for each seed."""
    import torch

    out = torch.empty(len(seeds), count, dtype=torch.float32, device=device)
    if out.is_cuda:
        _backend("cuda").fill_each_(out, Where(tensor_id, start), seeds, kind)
        return out
    if out.device.type == "cpu" and kind == "rademacher":
        import_module("mezo.noise.cpu_signs").fill_(out, tensor_id, start, seeds)
        return out
    for row, seed in zip(out.split(1), seeds, strict=True):
        fill_(row, Where(tensor_id, start), seed, kind=kind)
    return out


def perturb(
    weight: "torch.Tensor",
    where: Where,
    seed: int,
    scale: float,
    out: "torch.Tensor",
    *,
    rows: "torch.Tensor | None" = None,
    kind: Kind = "gaussian",
) -> None:
    """out = round_to_nearest_even(float32(weight) + float32(scale) * z).

    `out` may be `weight` itself (the in-place walk of Malladi et al. 2023, algorithm 1) or another tensor of its
    shape and dtype with any row stride, but may not overlap it in part. `rows` (n,) int64: only these rows, in this
    order, with repetitions (an embedding look-up); then `out` is (n, columns) and not the weight.
    """
    _backend(weight.device.type).perturb(weight, where, seed, scale, out, None, rows, kind)


def perturb_pair(
    weight: "torch.Tensor",
    where: Where,
    seed: int,
    scale: float,
    plus: "torch.Tensor",
    minus: "torch.Tensor",
    *,
    rows: "torch.Tensor | None" = None,
    kind: Kind = "gaussian",
) -> None:
    """plus, minus = round_to_nearest_even(float32(weight) +- float32(scale) * z); z is made once.

    `rows`: as in `perturb`.
    """
    _backend(weight.device.type).perturb(weight, where, seed, scale, plus, minus, rows, kind)


def update_(
    weight: "torch.Tensor",
    where: Where,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    *,
    decay: float = 1.0,
    rounding: Rounding = "stochastic",
    rounding_seed: int = 0,
    kind: Kind = "gaussian",
) -> None:
    """weight = round(weight * decay + a_1 z_1 + a_2 z_2 ...), in one pass over memory.

    In float32, each operation rounded, in the order given; then float32 weights are stored as they
    are, and 16-bit weights are rounded:

    - nearest: to nearest even. Updates that are small beside the weight's own spacing are lost.
    - stochastic: with 16 random bits an element under the key `rounding_seed`. Exactly unbiased, but for
      float16 results below 2^-17 (subnormal), where the bias is at most 2^-17 of a unit in the last place.
    - matched: to nearest, but elements of the largest updates move to the next value although nearest
      would not move them, so many that the update keeps its size along every z_k. As faithful as
      stochastic in the mean over elements, with half its noise or less (`mezo.noise.matched`). Decay comes
      first, rounded stochastically; with Rademacher noise, all of one magnitude, it is stochastic rounding.

    Infinities and NaNs stay what they are. An interrupt (Ctrl-C) is raised when the operation has ended,
    not in its middle.
    """
    _backend(weight.device.type).update_(
        weight, where, seeds, coefficients, decay, rounding, rounding_seed, kind
    )


def store_(
    weight: "torch.Tensor",
    where: Where,
    values: "torch.Tensor",
    *,
    rounding: Rounding = "stochastic",
    rounding_seed: int = 0,
) -> None:
    """weight = round(values), with the bits that `update_` would round with.

    `values`: float32, of the weight's shape and device, with any row stride. For updates that are computed elsewhere,
    block by block. Raises MezoError for matched rounding, which needs the update itself.
    """
    _backend(weight.device.type).store_(weight, where, values, rounding, rounding_seed)


def perturb_all(
    group: TensorGroup,
    seed: int,
    scale: float,
    out: "Sequence[torch.Tensor]",
    *,
    kind: Kind = "gaussian",
) -> None:
    """`perturb` of every tensor of a group, in one kernel call per device and element type.

    `out` may be `group.weights`; otherwise it has tensors of the same shapes and dtypes.
    """
    _check_number("outputs", out, group)
    for part in group.parts(_backend):
        part.backend.perturb_all(part.table, seed, scale, part.of(out), None, kind)


def perturb_pair_all(
    group: TensorGroup,
    seed: int,
    scale: float,
    plus: "Sequence[torch.Tensor]",
    minus: "Sequence[torch.Tensor]",
    *,
    kind: Kind = "gaussian",
) -> None:
    """`perturb_pair` of every tensor of a group, in one kernel call per device and element type."""
    _check_number("outputs", plus, group)
    _check_number("outputs", minus, group)
    for part in group.parts(_backend):
        part.backend.perturb_all(part.table, seed, scale, part.of(plus), part.of(minus), kind)


def update_all_(
    group: TensorGroup,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    *,
    decays: Sequence[float] | None = None,
    rounding: Rounding = "stochastic",
    rounding_seed: int = 0,
    kind: Kind = "gaussian",
) -> None:
    """`update_` of every tensor of a group, in one kernel call per device and element type.

    `decays`: a factor for each tensor; None: 1 for all.
    """
    if decays is not None:
        _check_number("decays", decays, group)
    for part in group.parts(_backend):
        own = None if decays is None else part.of(decays)
        part.backend.update_all_(part.table, seeds, coefficients, own, rounding, rounding_seed, kind)


def update_sequence_(
    group: TensorGroup,
    steps: Sequence[Sequence[Step]],
    *,
    rounding: Rounding = "stochastic",
    kind: Kind = "gaussian",
) -> None:
    """`update_` of each tensor by one step after another, in one pass over memory: the same bits.

    steps[i]: of the i-th tensor; tensors with the same steps should share one list. Raises MezoError for tensors that
    are not on a CPU.
    """
    _check_number("lists of steps", steps, group)
    for part in group.parts(_backend):
        if not hasattr(part.backend, "update_sequence_"):
            raise MezoError("several updates in one pass are for tensors on a CPU; use update_all_ for each")
        part.backend.update_sequence_(part.table, part.of(steps), rounding, kind)


def _check_number(what: str, given: Sequence[object], group: TensorGroup) -> None:
    if len(given) != len(group.weights):
        raise MezoError(f"expected {len(group.weights)} {what}, one for each tensor, found {len(given)}")


def sum_of_squares(
    where: Where, shape: tuple[int, int], seed: int, *, kind: Kind, device: "torch.device | str" = "cpu"
) -> int:
    """The sum of round(4096 z)^2 over a view, an exact integer: shards add up, and ||z|| = sqrt(sum) / 4096 exactly."""
    return _backend(str(device).partition(":")[0]).sum_of_squares(where, shape, seed, kind, device)


_BACKENDS = {"cpu": "mezo.noise.cpu", "cuda": "mezo.noise.gpu"}
_loaded: dict[str, Any] = {}


def _backend(device: str) -> Any:
    if device not in _loaded:
        if device not in _BACKENDS:
            raise MezoError(f"no noise kernels for device {device!r}{near(device, _BACKENDS)}")
        try:
            _loaded[device] = import_module(_BACKENDS[device])
        except ModuleNotFoundError as error:
            raise MezoError(
                f"noise on {device!r} needs the package {error.name!r}, which is not installed"
            ) from None
    return _loaded[device]
