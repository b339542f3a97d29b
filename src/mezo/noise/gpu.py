"""The noise operations on GPU tensors: layout, and one launch each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mezo.noise import gpu_formats as formats
from mezo.noise import gpu_kernels
from mezo.noise.gpu_stream import GAUSSIAN, RADEMACHER
from mezo.noise.layout import check_directions, check_index, check_noise_buffer, layout, look_up_dtype
from mezo.registry import look_up

if TYPE_CHECKING:
    from mezo.noise import Where

_KIND = {"gaussian": GAUSSIAN.value, "rademacher": RADEMACHER.value}
_FORM = {
    torch.float32: formats.FLOAT32.value,
    torch.bfloat16: formats.BFLOAT16.value,
    torch.float16: formats.FLOAT16.value,
}
_ROUNDING = {"nearest": False, "stochastic": True}
_LANES = 256  # of eight elements each, a program

kernels: Any = gpu_kernels  # their parameters are declared in Triton's types, not in those of the caller

# A fused multiply-add changes 7% of the values (see `spec`).
OPTIONS: dict[str, Any] = dict(enable_fp_fusion=False)


def fill_(out: torch.Tensor, where: "Where", seed: int, kind: str, purpose: int) -> None:
    check_noise_buffer(out)
    rows, cols, _, start, row_stride = layout(where, out)
    programs = _programs(cols)
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
    programs = _programs(cols)
    w, p = _memory(weight), _memory(plus)
    m = p if minus is None else _memory(minus)
    if rows and cols:
        with torch.cuda.device_of(weight):
            kernels.perturb[(rows * programs,)](
                w,
                w.stride(0),
                p if index is None else index,
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
    stochastic = look_up(_ROUNDING, rounding, "rounding") and weight.element_size() == 2
    programs = _programs(cols)
    signed = [seed - (1 << 64) if seed >> 63 else seed for seed in seeds]
    keys = torch.tensor(signed or [0], dtype=torch.int64, device=weight.device)
    factors = torch.tensor(
        [float(a) for a in coefficients] or [0.0], dtype=torch.float32, device=weight.device
    )
    w = _memory(weight)
    if rows and cols:
        with torch.cuda.device_of(weight):
            kernels.update[(rows * programs,)](
                w,
                w.stride(0),
                cols,
                programs,
                start,
                row_stride,
                where.tensor_id,
                keys,
                factors,
                len(signed),
                float(decay),
                rounding_seed,
                number,
                form,
                stochastic,
                _LANES,
                **OPTIONS,
            )


def sum_of_squares(
    where: "Where", shape: tuple[int, int], seed: int, kind: str, device: torch.device | str
) -> int:
    rows, cols = shape
    row_stride = cols if where.row_stride is None else where.row_stride
    programs, number = _programs(cols), look_up(_KIND, kind, "noise")
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


def _programs(cols: int) -> int:
    """How many programs cover a row, wherever in a block of 128 elements it begins."""
    return -(-(cols + 127) // (8 * _LANES))


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """16-bit tensors as integers, which is how the kernels read and write them."""
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float32 else tensor.view(torch.int16)
