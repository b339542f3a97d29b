"""The noise operations on GPU tensors: layout, and one launch each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mezo.noise import gpu_formats as formats
from mezo.noise import gpu_kernels, gpu_table, gpu_updates
from mezo.noise import rounding as roundings
from mezo.noise.gpu_stream import GAUSSIAN, RADEMACHER
from mezo.noise.gpu_table import programs as programs_of
from mezo.noise.gpu_table import send
from mezo.noise.layout import check_directions, check_index, check_noise_buffer, layout, look_up_dtype
from mezo.util.registry import look_up

if TYPE_CHECKING:
    from mezo.noise.where import Where

_KIND = {"gaussian": GAUSSIAN.value, "rademacher": RADEMACHER.value}
_FORM = {
    torch.float32: formats.FLOAT32.value,
    torch.bfloat16: formats.BFLOAT16.value,
    torch.float16: formats.FLOAT16.value,
}
_LANES = 256  # of eight elements each, a program

kernels: Any = gpu_kernels  # their parameters are declared in Triton's types, not in those of the caller
updates: Any = gpu_updates

# A fused multiply-add changes 7% of the values (see `spec`).
OPTIONS: dict[str, Any] = dict(enable_fp_fusion=False)


def fill_(out: torch.Tensor, where: "Where", seed: int, kind: str, purpose: int) -> None:
    check_noise_buffer(out)
    rows, cols, _, start, row_stride = layout(where, out)
    place = _place(cols, start, row_stride, where)
    _launch(
        kernels.fill, rows, place, out, out.stride(0), *place, seed, purpose, look_up(_KIND, kind, "noise")
    )


def fill_each_(out: torch.Tensor, where: "Where", seeds: Sequence[int], kind: str) -> None:
    """out (seeds, n) float32, contiguous = the noise of the elements from `where` on, a row for each seed."""
    check_noise_buffer(out)
    keys = send(np.array(seeds, np.uint64).view(np.int64), out.device)
    place = _place(out.shape[1], where.start, 0, where)
    _launch(kernels.fill_each, len(out), place, out, keys, *place, look_up(_KIND, kind, "noise"))


def perturb(
    weight: torch.Tensor,
    where: "Where",
    seed: int,
    scale: float,
    plus: torch.Tensor,
    minus: torch.Tensor | None,
    index: torch.Tensor | None,
    kind: str,
) -> None:
    outputs = (plus,) if minus is None else (plus, minus)
    rows, cols, _, start, row_stride = layout(where, weight, *outputs, index=index)
    form, number = look_up_dtype(_FORM, weight), look_up(_KIND, kind, "noise")
    if index is not None:
        index = check_index(index, weight)
    w, p = _memory(weight), _memory(plus)
    m = p if minus is None else _memory(minus)
    read = (w, w.stride(0), p if index is None else index, weight.shape[0])
    written = (p, p.stride(0), m, m.stride(0))
    how = (seed, float(scale), number, form, minus is not None, index is not None)
    place = _place(cols, start, row_stride, where)
    _launch(kernels.perturb, rows, place, *read, *written, *place, *how)


def update_(
    weight: torch.Tensor,
    where: "Where",
    seeds: Sequence[int],
    coefficients: Sequence[float],
    decay: float,
    rounding: str,
    rounding_seed: int,
    kind: str,
) -> None:
    check_directions(seeds, coefficients)
    rows, cols, _, start, row_stride = layout(where, weight)
    form, number = look_up_dtype(_FORM, weight), look_up(_KIND, kind, "noise")
    mode = roundings.of_update(weight.dtype, rounding, kind, seeds, coefficients)
    arguments = _arguments(seeds, coefficients, mode, [], weight.device)
    w, place = _memory(weight), _place(cols, start, row_stride, where)
    how = (arguments, len(seeds), float(decay), rounding_seed, number, form, mode.number)
    _launch(updates.update, rows, place, w, w.stride(0), *place, *how)


def store_(
    weight: torch.Tensor, where: "Where", values: torch.Tensor, rounding: str, rounding_seed: int
) -> None:
    form, mode = look_up_dtype(_FORM, weight), roundings.of_values(weight.dtype, rounding)
    rows, cols, _, start, row_stride = layout(where, weight, values, dtype=torch.float32)
    w, place = _memory(weight), _place(cols, start, row_stride, where)
    memory = (w, w.stride(0), values.detach(), values.stride(0))
    _launch(updates.store_values, rows, place, *memory, *place, rounding_seed, form, mode.number)


def table_of(weights: Sequence[torch.Tensor], wheres: "Sequence[Where]") -> gpu_table.GpuTable:
    look_up_dtype(_FORM, weights[0])
    return gpu_table.GpuTable(weights, wheres, _LANES)


def perturb_all(
    table: gpu_table.GpuTable,
    seed: int,
    scale: float,
    plus: Sequence[torch.Tensor],
    minus: Sequence[torch.Tensor] | None,
    kind: str,
) -> None:
    rows = table.onto(plus) if minus is None else table.onto(plus, minus)
    how = (seed, float(scale), look_up(_KIND, kind, "noise"), _FORM[table.dtype], minus is not None)
    _run(kernels.perturb_all, len(rows.owner), rows.words, rows.owner, *how)


def update_all_(
    table: gpu_table.GpuTable,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    decays: Sequence[float] | None,
    rounding: str,
    rounding_seed: int,
    kind: str,
) -> None:
    check_directions(seeds, coefficients)
    rows, form, number = table.rows, _FORM[table.dtype], look_up(_KIND, kind, "noise")
    mode = roundings.of_update(table.dtype, rounding, kind, seeds, coefficients)
    decays = [1.0] * len(table.weights) if decays is None else decays
    arguments = _arguments(seeds, coefficients, mode, decays, table.device)
    how = (arguments, len(seeds), rounding_seed, number, form, mode.number)
    _run(updates.update_all, len(rows.owner), rows.words, rows.owner, *how)


def sum_of_squares(
    where: "Where", shape: tuple[int, int], seed: int, kind: str, device: torch.device | str
) -> int:
    rows, cols = shape
    place = _place(cols, where.start, cols if where.row_stride is None else where.row_stride, where)
    sums = torch.zeros(rows * place[1], dtype=torch.int64, device=device)
    _launch(kernels.sum_of_squares, rows, place, sums, *place, seed, look_up(_KIND, kind, "noise"))
    return int(sums.sum())


def _place(cols: int, start: int, row_stride: int, where: "Where") -> tuple[int, int, int, int, int]:
    """What every kernel of one tensor needs to know about a row: columns, programs, and its place in the stream."""
    return cols, programs_of(cols, _LANES), start, row_stride, where.tensor_id


def _launch(kernel: Any, rows: int, place: tuple[int, int, int, int, int], *arguments: Any) -> None:
    cols, programs, *_ = place
    _run(kernel, rows * programs if cols else 0, *arguments)


def _run(kernel: Any, programs: int, first: torch.Tensor, *others: Any) -> None:
    """On the device of the first argument; its last ones are the same for all kernels."""
    if programs:
        with torch.cuda.device_of(first):
            kernel[(programs,)](first, *others, _LANES, **OPTIONS)


def _arguments(
    seeds: Sequence[int],
    coefficients: Sequence[float],
    mode: roundings.Mode,
    decays: Sequence[float],
    device: torch.device,
) -> torch.Tensor:
    """One copy for all, int64: the seeds, the bits of the coefficients, of the thresholds, of the decays."""
    first, *thresholds = mode.levels
    bits = np.array([*coefficients, first, *thresholds, *decays], np.float32).view(np.uint32)
    bits[len(coefficients)] = first  # an integer
    words = np.concatenate([np.array(seeds, np.uint64), bits.astype(np.uint64)]).view(np.int64)
    return send(words, device)


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """16-bit tensors as integers, which is how the kernels read and write them."""
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float32 else tensor.view(torch.int16)
