"""Tensors for one launch: a table of int64 words, and for every program the number of its tensor.

Built on the host and sent from pinned memory, so that nothing waits for the GPU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
import triton.language as tl

from mezo.noise.layout import check_outputs, flattened, layout
from mezo.util.devices import to_device

if TYPE_CHECKING:
    from mezo.noise.where import Where

Tensors: TypeAlias = Sequence[torch.Tensor]

# A row of the table, a tensor. WEIGHT, PLUS, MINUS: addresses; *_STRIDE: elements from one row to the
# next; START, ROW_STRIDE, ID: the `Where`; PROGRAMS: how many cover a row; FIRST: the first of them all.
WEIGHT, WEIGHT_STRIDE, PLUS, PLUS_STRIDE, MINUS, MINUS_STRIDE = map(tl.constexpr, range(6))
WIDTH, START, ROW_STRIDE, ID, PROGRAMS, FIRST, COLUMNS = map(tl.constexpr, range(6, 13))


class GpuRows(NamedTuple):
    host: np.ndarray  # (tensors, COLUMNS)
    words: torch.Tensor  # the same, on the GPU
    owner: torch.Tensor  # (programs,) int32


class GpuTable:
    """Tensors of one element type on one GPU."""

    def __init__(self, weights: Tensors, wheres: "Sequence[Where]", lanes: int) -> None:
        self.weights, self.wheres, self.lanes = weights, wheres, lanes
        self.dtype, self.device = weights[0].dtype, weights[0].device
        self.places = [(w.shape, w.stride()) for w in weights]
        self.rows = self._rows(weights)

    def onto(self, *outputs: Tensors) -> GpuRows:
        """The rows with outputs beside the weights: PLUS, and if there are two, MINUS."""
        if not check_outputs(self.weights, self.places, outputs):
            return self._rows(self.weights, *outputs)
        host = self.rows.host.copy()
        for column, tensors in zip((PLUS.value, MINUS.value), outputs, strict=False):
            host[:, column] = [tensor.data_ptr() for tensor in tensors]
            host[:, column + 1] = host[:, WEIGHT_STRIDE.value]
        return self.rows._replace(host=host, words=send(host, self.device))

    def _rows(self, *tensors: Tensors) -> GpuRows:
        rows: list[list[int]] = []
        counts: list[int] = []
        first = 0
        for where, *given in zip(self.wheres, *tensors, strict=True):
            operands = [flattened(tensor, where) for tensor in given]
            height, width, strides, start, row_stride = layout(where, *operands)
            across = programs(width, self.lanes)
            row = [0] * WIDTH.value
            for i, operand in enumerate(operands):
                row[2 * i : 2 * i + 2] = operand.data_ptr(), strides[i] // operand.element_size()
            rows.append([*row, width, start, row_stride, where.tensor_id, across, first])
            counts.append(height * across if width else 0)
            first += counts[-1]
        host = np.array(rows, np.int64)
        owner = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        return GpuRows(host, send(host, self.device), send(owner, self.device))


def programs(cols: int, lanes: int) -> int:
    """How many programs of eight elements a lane cover a row, wherever in a block of 128 it begins."""
    return -(-(cols + 127) // (8 * lanes))


def send(words: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy on the device, on its way while the host goes on."""
    return to_device(torch.from_numpy(words), device)
