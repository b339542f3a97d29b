"""The noise operations on CPU tensors: layout, pieces of 64K elements, the pool."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mezo.noise import cpu_kernels as kernels
from mezo.noise import pool
from mezo.noise.cpu_stream import BLOCK, GAUSSIAN, RADEMACHER
from mezo.noise.layout import check_directions, check_index, check_noise_buffer, layout, look_up_dtype
from mezo.registry import look_up

if TYPE_CHECKING:
    from mezo.noise import Where

_LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0), torch.float16: np.int16(0)}
_KIND = {"gaussian": GAUSSIAN, "rademacher": RADEMACHER}
_ROUNDING = {"nearest": kernels.NEAREST, "stochastic": kernels.STOCHASTIC}
_PIECE = 1 << 16  # elements; some 50 us of Gaussian work
_INLINE = 1 << 15  # elements; up to here, waking another thread costs more than it brings


def fill_(out: torch.Tensor, where: "Where", seed: int, kind: str, purpose: int) -> None:
    check_noise_buffer(out)
    rows, cols, (stride,), start, row_stride = layout(where, out)
    o, key, number, tensor = out.data_ptr(), _signed(seed), look_up(_KIND, kind, "noise"), where.tensor_id

    def piece(row: int, height: int, col: int, width: int) -> None:
        g = start + row * row_stride + col
        kernels.fill(
            o + row * stride + col * 4, stride, height, width, g, row_stride, tensor, key, number, purpose
        )

    _run(piece, rows, cols, start)


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
    rows, cols, strides, start, row_stride = layout(where, weight, *outputs, index=index)
    like, w, p, m, chosen = look_up_dtype(_LIKE, weight), weight.data_ptr(), plus.data_ptr(), 0, 0
    if minus is not None:
        m = minus.data_ptr()
    if index is not None:
        index = check_index(index, weight)  # rebound, so that a contiguous copy lives until the work is done
        chosen = index.data_ptr()
    w_stride, p_stride, m_stride = strides[0], strides[1], strides[-1]
    size, key, scale = weight.element_size(), _signed(seed), float(scale)
    number, tensor = look_up(_KIND, kind, "noise"), where.tensor_id

    def piece(row: int, height: int, col: int, width: int) -> None:
        taken = 0 if chosen else row  # an index counts rows of the weight from its own first
        kernels.perturb(
            like,
            w + taken * w_stride + col * size,
            w_stride,
            chosen and chosen + row * 8,
            p + row * p_stride + col * size,
            p_stride,
            m and m + row * m_stride + col * size,
            m_stride,
            height,
            width,
            start + taken * row_stride + col,
            row_stride,
            tensor,
            key,
            scale,
            number,
        )

    _run(piece, rows, cols, start)


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
    rows, cols, (stride,), start, row_stride = layout(where, weight)
    like, w, size = look_up_dtype(_LIKE, weight), weight.data_ptr(), weight.element_size()
    keys, factors = np.array(seeds, np.uint64), np.array(coefficients, np.float32)
    decay, number, tensor = float(decay), look_up(_KIND, kind, "noise"), where.tensor_id
    mode, rounding_key = look_up(_ROUNDING, rounding, "rounding"), _signed(rounding_seed)
    if size == 4:
        mode = kernels.NEAREST  # float32 is stored as it is: no bits need be drawn

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
            rounding_key,
        )

    _run(piece, rows, cols, start)


def sum_of_squares(
    where: "Where", shape: tuple[int, int], seed: int, kind: str, device: torch.device | str
) -> int:
    rows, cols = shape
    row_stride = cols if where.row_stride is None else where.row_stride
    start, key, number, tensor = where.start, _signed(seed), look_up(_KIND, kind, "noise"), where.tensor_id
    sums: list[int] = []

    def piece(row: int, height: int, col: int, width: int) -> None:
        g = start + row * row_stride + col
        sums.append(kernels.sum_of_squares(height, width, g, row_stride, tensor, key, number))

    _run(piece, rows, cols, start)
    return sum(sums)


def _run(piece: Callable[[int, int, int, int], None], rows: int, cols: int, start: int) -> None:
    """Call piece(row, height, column, width) until rows x cols are covered, on torch's number of threads."""
    if rows * cols <= _INLINE or (threads := torch.get_num_threads()) == 1:
        piece(0, rows, 0, cols)
        return
    height = max(1, _PIECE // cols)
    calls = []
    for row in range(0, rows, height):
        left = 0
        while left < cols:  # cut where a block of the stream ends, so that no block is made twice
            right = min(cols, left + _PIECE - (start + left) % BLOCK)
            calls.append(partial(piece, row, min(height, rows - row), left, right - left))
            left = right
    pool.run(calls, threads)


def _signed(seed: Any) -> int:
    """The seed's 64 bits as a signed integer: Numba would compile once more for unsigned ones."""
    seed = int(seed)
    return seed - (1 << 64) if seed >> 63 else seed
