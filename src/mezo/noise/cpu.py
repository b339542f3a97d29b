"""The noise operations on CPU tensors: pieces of 64K elements for the kernels and the pool."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from mezo.errors import MezoError
from mezo.noise import cpu_kernels as kernels
from mezo.noise import pool

_LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0), torch.float16: np.int16(0)}
_KIND = {"gaussian": kernels.GAUSSIAN, "rademacher": kernels.RADEMACHER}
_ROUNDING = {"nearest": kernels.NEAREST, "stochastic": kernels.STOCHASTIC}
_PIECE = 1 << 16  # elements; some 50 us of Gaussian work
_INLINE = 1 << 15  # elements; up to here, waking another thread costs more than it brings


def fill_(out: torch.Tensor, where: Any, seed: int, kind: str, purpose: int) -> None:
    if out.dtype != torch.float32:
        raise MezoError(f"noise is float32: expected a float32 tensor to fill, found {out.dtype}")
    rows, cols, (stride,), start, row_stride = _layout(where, out)
    address, seed, number, tensor = out.data_ptr(), _signed(seed), _KIND[kind], where.tensor_id

    def piece(row: int, height: int, col: int, width: int) -> None:
        o = address + row * stride + col * 4
        g = start + row * row_stride + col
        kernels.fill(o, stride, height, width, g, row_stride, tensor, seed, number, purpose)

    _run(piece, rows, cols, start)


def perturb(weight: torch.Tensor, where: Any, seed: int, scale: float, plus: torch.Tensor, minus: torch.Tensor | None, kind: str) -> None:  # noqa: E501
    if minus is None:
        rows, cols, (w_stride, p_stride), start, row_stride = _layout(where, weight, plus)
        m, m_stride = 0, 0
    else:
        rows, cols, (w_stride, p_stride, m_stride), start, row_stride = _layout(where, weight, plus, minus)
        m = minus.data_ptr()
    like, w, p = _like(weight), weight.data_ptr(), plus.data_ptr()
    size = like.itemsize
    seed, scale, number, tensor = _signed(seed), float(scale), _KIND[kind], where.tensor_id

    def piece(row: int, height: int, col: int, width: int) -> None:
        kernels.perturb(
            like,
            w + row * w_stride + col * size,
            w_stride,
            p + row * p_stride + col * size,
            p_stride,
            m + row * m_stride + col * size if m else 0,
            m_stride,
            height,
            width,
            start + row * row_stride + col,
            row_stride,
            tensor,
            seed,
            scale,
            number,
        )

    _run(piece, rows, cols, start)


def update_(weight: torch.Tensor, where: Any, seeds: Sequence[int], coefficients: Sequence[float], decay: float, rounding: str, rounding_seed: int, kind: str) -> None:  # noqa: E501
    rows, cols, (stride,), start, row_stride = _layout(where, weight)
    like, w = _like(weight), weight.data_ptr()
    size = like.itemsize
    keys, factors = np.array(seeds, np.uint64), np.array(coefficients, np.float32)
    decay, number, tensor = float(decay), _KIND[kind], where.tensor_id
    mode, rounding_seed = _ROUNDING[rounding if size == 2 else "nearest"], _signed(rounding_seed)

    def piece(row: int, height: int, col: int, width: int) -> None:
        kernels.update(
            like,
            w + row * stride + col * size,
            stride,
            height,
            width,
            start + row * row_stride + col,
            row_stride,
            tensor,
            keys,
            factors,
            decay,
            number,
            mode,
            rounding_seed,
        )

    _run(piece, rows, cols, start)


def sum_of_squares(where: Any, shape: tuple[int, int], seed: int, kind: str) -> int:
    rows, cols = shape
    row_stride = cols if where.row_stride is None else where.row_stride
    sums: list[int] = []

    def piece(row: int, height: int, col: int, width: int) -> None:
        g = where.start + row * row_stride + col
        sums.append(kernels.sum_of_squares(height, width, g, row_stride, where.tensor_id, _signed(seed), _KIND[kind]))

    _run(piece, rows, cols, where.start)
    return sum(sums)


def _layout(where: Any, first: torch.Tensor, *others: torch.Tensor) -> tuple[int, int, list[int], int, int]:
    """(rows, columns, row stride of each tensor in bytes, global start, global row stride); one row if all is contiguous."""
    if first.dim() != 2:
        raise MezoError(f"expected a 2-D view (rows, columns) of a weight, found shape {tuple(first.shape)}")
    rows, cols = shape = first.shape
    size, strides = first.element_size(), []
    for tensor in (first, *others):
        if tensor.shape != shape or tensor.dtype != first.dtype:
            raise MezoError(
                f"expected a tensor like the weight, {tuple(shape)} {first.dtype}, "
                f"found {tuple(tensor.shape)} {tensor.dtype}"
            )
        stride, step = tensor.stride()
        if step != 1 and cols > 1:
            raise MezoError(f"expected columns side by side in memory (stride 1), found stride {step}")
        strides.append(stride * size)
    row_stride = cols if where.row_stride is None else where.row_stride
    if rows > 1 and row_stride == cols and all(stride == cols * size for stride in strides):
        return 1, rows * cols, strides, where.start, rows * cols
    return rows, cols, strides, where.start, row_stride


def _run(piece: Callable[[int, int, int, int], None], rows: int, cols: int, start: int) -> None:
    """Call piece(row, height, column, width) until rows x columns are covered, on torch's number of threads."""
    if rows * cols <= _INLINE or (threads := torch.get_num_threads()) == 1:
        return piece(0, rows, 0, cols)
    height = max(1, _PIECE // cols)
    calls = []
    for row in range(0, rows, height):
        left = 0
        while left < cols:  # cut where a block of the stream ends, so that no block is made twice
            right = min(cols, left + _PIECE - (start + left) % kernels.BLOCK)
            calls.append(partial(piece, row, min(height, rows - row), left, right - left))
            left = right
    pool.run(calls, threads)


def _like(weight: torch.Tensor) -> Any:
    try:
        return _LIKE[weight.dtype]
    except KeyError:
        raise MezoError(f"expected float32, bfloat16 or float16 weights, found {weight.dtype}") from None


def _signed(seed: int) -> int:
    """The seed's 64 bits as a signed integer: Numba would compile twice for two kinds of integer."""
    return seed - (1 << 64) if seed >> 63 else seed
