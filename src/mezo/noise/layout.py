"""What a tensor must look like to be given noise, on any device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from mezo.errors import MezoError

if TYPE_CHECKING:
    from mezo.noise import Where

T = TypeVar("T")


def layout(
    where: "Where", weight: torch.Tensor, *outputs: torch.Tensor, index: torch.Tensor | None = None
) -> tuple[int, int, list[int], int, int]:
    """(rows, columns, row stride of each tensor in bytes, global start, global row stride).

    Tensors that are contiguous in memory and in the whole tensor come back as one long row.
    Raises MezoError if a tensor is not 2-D with columns side by side, or an output not like the weight.
    """
    if weight.dim() != 2:
        raise MezoError(f"expected a 2-D view (rows, columns) of a weight, found shape {tuple(weight.shape)}")
    rows, cols = weight.shape
    if index is not None:
        rows = index.numel()
    size, strides = weight.element_size(), [_row_stride(weight)]
    for tensor in outputs:
        if tensor.shape != (rows, cols) or tensor.dtype != weight.dtype or tensor.device != weight.device:
            raise MezoError(
                f"expected an output like the weight, ({rows}, {cols}) {weight.dtype} on {weight.device}, "
                f"found {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )
        strides.append(_row_stride(tensor))
    row_stride = cols if where.row_stride is None else where.row_stride
    if rows > 1 and index is None and row_stride == cols and all(stride == cols for stride in strides):
        rows, cols = 1, rows * cols
    return rows, cols, [stride * size for stride in strides], where.start, row_stride


def _row_stride(tensor: torch.Tensor) -> int:
    row_stride, step = tensor.stride()
    if step != 1 and tensor.shape[1] > 1:
        raise MezoError(f"expected columns side by side in memory (stride 1), found stride {step}")
    return row_stride


def check_index(index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The row numbers, contiguous; a MezoError unless they are int64, 1-D and rows of the weight."""
    if index.dtype != torch.int64 or index.dim() != 1:
        raise MezoError(f"expected row numbers (n,) torch.int64, found {tuple(index.shape)} {index.dtype}")
    if index.numel():
        low, high = (int(bound) for bound in torch.aminmax(index))
        if low < 0 or high >= weight.shape[0]:
            raise MezoError(f"expected row numbers from 0 to {weight.shape[0] - 1}, found {low} to {high}")
    return index.contiguous()


def check_noise_buffer(out: torch.Tensor) -> None:
    if out.dtype != torch.float32:
        raise MezoError(f"noise is float32: expected a float32 tensor to fill, found {out.dtype}")


def look_up_dtype(table: Mapping[torch.dtype, T], weight: torch.Tensor) -> T:
    try:
        return table[weight.dtype]
    except KeyError:
        raise MezoError(f"expected float32, bfloat16 or float16 weights, found {weight.dtype}") from None


def check_directions(seeds: Sequence[int], coefficients: Sequence[float]) -> None:
    if len(seeds) != len(coefficients):
        raise MezoError(f"expected a coefficient for each seed, found {len(coefficients)} for {len(seeds)}")
