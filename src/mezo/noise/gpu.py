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
    programs = programs_of(cols, _LANES)
    number = look_up(_KIND, kind, "noise")
    if rows and cols:
        with torch.cuda.device_of(out):
            kernels.fill[(rows * programs,)](
                out,
                out.stride(0),
                cols,
                programs,
                start,
                row_stride,
                where.tensor_id,
                seed,
                purpose,
                number,
                _LANES,
                **OPTIONS,
            )


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
    programs = programs_of(cols, _LANES)
    w, p = _memory(weight), _memory(plus)
    m = p if minus is None else _memory(minus)
    if rows and cols:
        with torch.cuda.device_of(weight):
            kernels.perturb[(rows * programs,)](
                w,
                w.stride(0),
                p if index is None else index,
                weight.shape[0],
                p,
                p.stride(0),
                m,
                m.stride(0),
                cols,
                programs,
                start,
                row_stride,
                where.tensor_id,
                seed,
                float(scale),
                number,
                form,
                minus is not None,
                index is not None,
                _LANES,
                **OPTIONS,
            )


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
    programs = programs_of(cols, _LANES)
    arguments = _arguments(seeds, coefficients, mode, [], weight.device)
    w = _memory(weight)
    if rows and cols:
        with torch.cuda.device_of(weight):
            updates.update[(rows * programs,)](
                w,
                w.stride(0),
                cols,
                programs,
                start,
                row_stride,
                where.tensor_id,
                arguments,
                len(seeds),
                float(decay),
                rounding_seed,
                number,
                form,
                mode.number,
                _LANES,
                **OPTIONS,
            )


def store_(
    weight: torch.Tensor, where: "Where", values: torch.Tensor, rounding: str, rounding_seed: int
) -> None:
    form, mode = look_up_dtype(_FORM, weight), roundings.of_values(weight.dtype, rounding)
    rows, cols, _, start, row_stride = layout(where, weight, values, dtype=torch.float32)
    programs, w = programs_of(cols, _LANES), _memory(weight)
    if rows and cols:
        with torch.cuda.device_of(weight):
            updates.store_values[(rows * programs,)](
                w,
                w.stride(0),
                values.detach(),
                values.stride(0),
                cols,
                programs,
                start,
                row_stride,
                where.tensor_id,
                rounding_seed,
                form,
                mode.number,
                _LANES,
                **OPTIONS,
            )


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
    form, number = _FORM[table.dtype], look_up(_KIND, kind, "noise")
    if len(rows.owner):
        with torch.cuda.device_of(rows.owner):
            kernels.perturb_all[(len(rows.owner),)](
                rows.words,
                rows.owner,
                seed,
                float(scale),
                number,
                form,
                minus is not None,
                _LANES,
                **OPTIONS,
            )


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
    rows = table.rows
    form, number = _FORM[table.dtype], look_up(_KIND, kind, "noise")
    mode = roundings.of_update(table.dtype, rounding, kind, seeds, coefficients)
    decays = [1.0] * len(table.weights) if decays is None else decays
    arguments = _arguments(seeds, coefficients, mode, decays, table.device)
    if len(rows.owner):
        with torch.cuda.device_of(rows.owner):
            updates.update_all[(len(rows.owner),)](
                rows.words,
                rows.owner,
                arguments,
                len(seeds),
                rounding_seed,
                number,
                form,
                mode.number,
                _LANES,
                **OPTIONS,
            )


def sum_of_squares(
    where: "Where", shape: tuple[int, int], seed: int, kind: str, device: torch.device | str
) -> int:
    rows, cols = shape
    row_stride = cols if where.row_stride is None else where.row_stride
    programs, number = programs_of(cols, _LANES), look_up(_KIND, kind, "noise")
    sums = torch.zeros(rows * programs, dtype=torch.int64, device=device)
    if rows and cols:
        with torch.cuda.device_of(sums):
            kernels.sum_of_squares[(rows * programs,)](
                sums,
                cols,
                programs,
                where.start,
                row_stride,
                where.tensor_id,
                seed,
                number,
                _LANES,
                **OPTIONS,
            )
    return int(sums.sum())


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
