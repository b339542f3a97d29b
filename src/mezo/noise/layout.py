"""What a tensor must look like to be given noise, on any device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from mezo.errors import MezoError

if TYPE_CHECKING:
    from mezo.noise.where import Where

T = TypeVar("T")


def layout(
    where: "Where",
    weight: torch.Tensor,
    *others: torch.Tensor,
    index: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[int, int, list[int], int, int]:
    """(rows, columns, row stride of each tensor in bytes, global start, global row stride).

    Tensors that are contiguous in memory and in the whole tensor become one long row. `dtype`: of the others; None:
    the weight's. Raises MezoError unless all are 2-D, alike, with contiguous columns.
    """
    if weight.dim() != 2:
        raise MezoError(f"expected a 2-D view (rows, columns) of a weight, found shape {tuple(weight.shape)}")
    rows, cols = weight.shape
    if index is not None:
        rows = index.numel()
    for tensor in others:
        check_output(tensor, weight, (rows, cols), dtype)
    strides = [_row_stride(tensor) for tensor in (weight, *others)]
    row_stride = cols if where.row_stride is None else where.row_stride
    if rows > 1 and index is None and row_stride == cols and all(stride == cols for stride in strides):
        rows, cols = 1, rows * cols
    in_bytes = [n * t.element_size() for n, t in zip(strides, (weight, *others), strict=True)]
    return rows, cols, in_bytes, where.start, row_stride


def flattened(tensor: torch.Tensor, where: "Where") -> torch.Tensor:
    """A 2-D view as it is; a contiguous tensor of any other shape, whole and unsharded, as one row."""
    whole = where.row_stride is None and tensor.dim() != 2 and tensor.is_contiguous()
    return tensor.detach().view(1, -1) if whole else tensor


def check_output(
    out: torch.Tensor, weight: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    """`dtype`: expected of `out`; None: the weight's."""
    what, dtype = ("an output", weight.dtype) if dtype is None else ("values", dtype)
    if out.shape != shape or out.dtype != dtype or out.device != weight.device:
        raise MezoError(
            f"expected {what} like the weight, {tuple(shape)} {dtype} on {weight.device}, "
            f"found {tuple(out.shape)} {out.dtype} on {out.device}"
        )


def check_outputs(
    weights: Sequence[torch.Tensor],
    places: Sequence[tuple[torch.Size, tuple[int, ...]]],
    outputs: Sequence[Sequence[torch.Tensor]],
) -> bool:
    """Whether the outputs also have the strides of their weights; `places`: shapes and strides of these."""
    same = True
    for tensors in outputs:
        for weight, out, (shape, strides) in zip(weights, tensors, places, strict=True):
            check_output(out, weight, shape)
            same = same and out.stride() == strides
    return same


def _row_stride(tensor: torch.Tensor) -> int:
    row_stride, step = tensor.stride()
    if step != 1 and tensor.shape[1] > 1:
        raise MezoError(f"expected columns side by side in memory (stride 1), found stride {step}")
    return row_stride


def check_index(index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The row numbers, contiguous; a MezoError unless they are int64, 1-D and rows of the weight.

    Their values are checked only in host memory: reading a GPU's would wait for it.
    """
    if index.dtype != torch.int64 or index.dim() != 1:
        raise MezoError(f"expected row numbers (n,) torch.int64, found {tuple(index.shape)} {index.dtype}")
    if index.numel() and not index.is_cuda:
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
