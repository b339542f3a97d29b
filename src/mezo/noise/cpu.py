"""The noise operations on CPU tensors: each is one call of a kernel on a table of tensors (`cpu_table`)."""

import ctypes
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch

from mezo.noise import cpu_kernels as kernels
from mezo.noise import cpu_table as t
from mezo.noise import cpu_updates as updates
from mezo.noise import omp_threads
from mezo.noise import rounding as roundings
from mezo.noise.cpu_jit import Native
from mezo.noise.cpu_stream import GAUSSIAN, RADEMACHER
from mezo.noise.group import Step
from mezo.noise.layout import (
    check_directions,
    check_index,
    check_noise_buffer,
    check_outputs,
    flattened,
    layout,
    look_up_dtype,
)
from mezo.util.registry import look_up

if TYPE_CHECKING:
    from mezo.noise.where import Where
from dataclasses import dataclass

Tensors: TypeAlias = Sequence[torch.Tensor]

_SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _by_dtype(module: Any, name: str) -> dict[torch.dtype, Native]:
    """A kernel for each element type."""
    return {dtype: getattr(module, f"{name}_{suffix}") for dtype, suffix in _SUFFIX.items()}


_PERTURB, _STORE = _by_dtype(kernels, "perturb"), _by_dtype(kernels, "store")
_UPDATE, _IN_TURN = _by_dtype(updates, "update"), _by_dtype(updates, "update_sequence")
_KIND = {"gaussian": GAUSSIAN, "rademacher": RADEMACHER}
_NEAREST = roundings.Mode(roundings.NEAREST)
_ALONE = 1 << 15  # elements; up to here, waking other threads costs more than they bring

_Call = ctypes.c_int64 * t.WORDS
_Row = ctypes.c_int64 * t.COLUMNS
_DOUBLE, _LONG = struct.Struct("d"), struct.Struct("q")
_ONE = 0x3F800000  # the bits of 1.0


class CpuRows(NamedTuple):
    """A table for a kernel."""

    words: Any  # a ctypes array, (tensors * COLUMNS) int64
    tensors: int
    pieces: int
    elements: int

    def copied(self) -> "tuple[CpuRows, np.ndarray]":
        """A copy, and a view of its words (tensors, COLUMNS) to write to."""
        words = type(self.words).from_buffer_copy(self.words)
        view = np.frombuffer(words, np.int64).reshape(self.tensors, t.COLUMNS)
        return self._replace(words=words), view


class CpuTable:
    """Tensors of one element type on which one kernel call works."""

    def __init__(self, weights: Tensors, wheres: "Sequence[Where]") -> None:
        self.dtype = weights[0].dtype
        self.wheres, self.weights = wheres, weights
        self.places = [(w.shape, w.stride()) for w in weights]
        look_up_dtype(_UPDATE, weights[0])
        self.rows = _rows(wheres, [flattened(w, where) for w, where in zip(weights, wheres, strict=True)])

    def onto(self, *outputs: Tensors) -> CpuRows:
        """The rows with outputs beside the weights: PLUS, and if there are two, MINUS."""
        if not check_outputs(self.weights, self.places, outputs):
            flat = [
                [flattened(tensor, where) for tensor, where in zip(tensors, self.wheres, strict=True)]
                for tensors in (self.weights, *outputs)
            ]
            return _rows(self.wheres, *flat)
        rows, words = self.rows.copied()
        for column, tensors in zip((t.PLUS, t.MINUS), outputs, strict=False):
            words[:, column] = [tensor.data_ptr() for tensor in tensors]
            words[:, column + 1] = words[:, t.WEIGHT_STRIDE]
        return rows


def table_of(weights: Tensors, wheres: "Sequence[Where]") -> CpuTable:
    return CpuTable(weights, wheres)


def fill_(out: torch.Tensor, where: "Where", seed: int, kind: str, purpose: int) -> None:
    check_noise_buffer(out)
    _launch(kernels.fill, _rows([where], [out]), kind, seed=seed, purpose=purpose)


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
    outputs = ([plus],) if minus is None else ([plus], [minus])
    if index is not None:
        index = check_index(index, weight)  # rebound, so that a contiguous copy lives until the work is done
    rows = _rows([where], [weight], *outputs, index=index)
    _launch(look_up_dtype(_PERTURB, weight), rows, kind, seed=seed, scale=scale)


def perturb_all(
    table: CpuTable, seed: int, scale: float, plus: Tensors, minus: Tensors | None, kind: str
) -> None:
    rows = table.onto(plus) if minus is None else table.onto(plus, minus)
    _launch(_PERTURB[table.dtype], rows, kind, seed=seed, scale=scale)


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
    rows, kernel = _rows([where], [weight]), look_up_dtype(_UPDATE, weight)
    rows.words[t.DECAY] = _float_bits(decay)
    mode = roundings.of_update(weight.dtype, rounding, kind, seeds, coefficients)
    _launch(kernel, rows, kind, seeds, coefficients, rounding=mode, rounding_seed=rounding_seed)


def store_(
    weight: torch.Tensor, where: "Where", values: torch.Tensor, rounding: str, rounding_seed: int
) -> None:
    kernel, values = look_up_dtype(_STORE, weight), values.detach()
    rows, mode = (
        _rows([where], [weight], [values], dtype=torch.float32),
        roundings.of_values(weight.dtype, rounding),
    )
    _launch(kernel, rows, rounding=mode, rounding_seed=rounding_seed)


def update_all_(
    table: CpuTable,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    decays: Sequence[float] | None,
    rounding: str,
    rounding_seed: int,
    kind: str,
) -> None:
    check_directions(seeds, coefficients)
    rows = table.rows
    if decays is not None:
        rows, words = rows.copied()
        words[:, t.DECAY] = np.array(decays, np.float32).view(np.int32)
    mode = roundings.of_update(table.dtype, rounding, kind, seeds, coefficients)
    _launch(_UPDATE[table.dtype], rows, kind, seeds, coefficients, rounding=mode, rounding_seed=rounding_seed)


def update_sequence_(table: CpuTable, steps: Sequence[Sequence[Step]], rounding: str, kind: str) -> None:
    lists = {id(own): own for own in steps}
    turns = {name: Turns.of(own, table.dtype, rounding, kind) for name, own in lists.items()}
    rows, words = table.rows.copied()
    words[:, t.STEPS] = [turns[id(own)].address for own in steps]
    words[:, t.HOW_MANY] = [len(own) for own in steps]
    # a call of the kernel finds its seeds in the table, and wants to know the most that a step has
    most = max((each.most for each in turns.values()), default=0)
    _launch(
        _IN_TURN[table.dtype], rows, kind, [0] * most, [0.0] * most, times=max(map(len, steps), default=0)
    )


def sum_of_squares(
    where: "Where", shape: tuple[int, int], seed: int, kind: str, device: torch.device | str
) -> int:
    height, width = shape
    row_stride = width if where.row_stride is None else where.row_stride
    row = _row(where, height, width, where.start, row_stride)
    rows = CpuRows(_Row(*row), 1, t.pieces(height, width, where.start), height * width)
    return _launch(kernels.sum_of_squares, rows, kind, seed=seed)


def _float_bits(value: float) -> int:
    return ctypes.c_int32.from_buffer(ctypes.c_float(value)).value


def _row(
    where: "Where", height: int, width: int, start: int, row_stride: int, memory: Sequence[int] = ()
) -> list[int]:
    empty = (0,) * (t.HEIGHT - len(memory))
    return [*memory, *empty, height, width, start, row_stride, where.tensor_id, _ONE, 0]


def _rows(
    wheres: "Sequence[Where]",
    *tensors: Tensors,
    index: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> CpuRows:
    """tensors: the weights, then what lies beside them, the first PLUS and the second MINUS, of `dtype`."""
    words: list[int] = []
    pieces = elements = 0
    for where, *operands in zip(wheres, *tensors, strict=True):
        height, width, strides, start, row_stride = layout(where, *operands, index=index, dtype=dtype)
        memory = []
        for i, operand in enumerate(operands):
            memory += operand.data_ptr(), strides[i]
        if index is not None:
            memory += *[0] * (t.INDEX - len(memory)), index.data_ptr()
        words += _row(where, height, width, start, row_stride, memory)
        words[-1] = pieces
        pieces += t.pieces(height, width, start)
        elements += height * width
    return CpuRows((ctypes.c_int64 * len(words))(*words), len(wheres), pieces, elements)


def _launch(
    kernel: Native,
    rows: CpuRows,
    kind: str = "gaussian",
    seeds: Sequence[int] = (),
    coefficients: Sequence[float] = (),
    *,
    seed: int = 0,
    scale: float = 0.0,
    purpose: int = 0,
    rounding: roundings.Mode = _NEAREST,
    rounding_seed: int = 0,
    times: int = 1,
) -> int:
    """Run a kernel over all pieces of a table, on torch's number of threads; the call's TOTAL.

    times: how often it works on an element.
    """
    number = look_up(_KIND, kind, "noise")
    if not rows.pieces:
        return 0
    n = len(seeds)
    keys = (ctypes.c_int64 * n)(*map(int, seeds))  # takes the 64 bits of an integer of either sign
    factors = (ctypes.c_float * n)(*coefficients)
    levels = (ctypes.c_float * len(rounding.levels))(*rounding.levels)
    call, address = _Call(), ctypes.addressof
    call[t.PIECES], call[t.TABLE], call[t.TENSORS] = rows.pieces, address(rows.words), rows.tensors
    call[t.KIND], call[t.SEED], call[t.PURPOSE] = number, int(seed), purpose
    call[t.SCALE] = _LONG.unpack(_DOUBLE.pack(scale))[0]
    call[t.SEEDS], call[t.COEFFICIENTS], call[t.DIRECTIONS] = address(keys), address(factors), n
    call[t.ROUNDING], call[t.ROUNDING_SEED] = rounding.number, int(rounding_seed)
    call[t.LEVELS] = address(levels)
    alone = rows.elements * times <= _ALONE
    omp_threads.run(kernel, ctypes.addressof(call), 1 if alone else torch.get_num_threads())
    return call[t.TOTAL]


@dataclass(frozen=True)
class Turns:
    words: np.ndarray  # (steps, STEP_WORDS) int64
    kept: tuple[np.ndarray, ...]  # what the words have addresses of

    @property
    def address(self) -> int:
        return self.words.ctypes.data

    @property
    def most(self) -> int:
        """Directions of the step that has the most."""
        return int(self.words[:, t.STEP_DIRECTIONS].max(initial=0))

    @classmethod
    def of(cls, steps: Sequence[Step], dtype: torch.dtype, rounding: str, kind: str) -> "Turns":
        """For weights of one element type. Raises MezoError if seeds and coefficients are not as many."""
        for step in steps:
            check_directions(step.seeds, step.coefficients)
        modes = [roundings.of_update(dtype, rounding, kind, step.seeds, step.coefficients) for step in steps]
        seeds = _keys([seed for step in steps for seed in step.seeds])
        coefficients = np.array([a for step in steps for a in step.coefficients], np.float32)
        levels = np.array([mode.levels for mode in modes], np.float32).reshape(len(steps), 5)
        directions = np.array([len(step.seeds) for step in steps], np.int64)
        first = np.cumsum(directions) - directions
        words = np.zeros((len(steps), t.STEP_WORDS), np.int64)
        words[:, t.STEP_SEEDS] = seeds.ctypes.data + first * seeds.itemsize
        words[:, t.STEP_COEFFICIENTS] = coefficients.ctypes.data + first * coefficients.itemsize
        words[:, t.STEP_DIRECTIONS] = directions
        words[:, t.STEP_DECAY] = np.array([step.decay for step in steps], np.float32).view(np.int32)
        words[:, t.STEP_ROUNDING] = [mode.number for mode in modes]
        words[:, t.STEP_ROUNDING_SEED] = _keys([step.rounding_seed for step in steps])
        words[:, t.STEP_LEVELS] = levels.ctypes.data + np.arange(len(steps)) * levels.strides[0]
        return cls(words, (seeds, coefficients, levels))


def _keys(seeds: Sequence[int]) -> np.ndarray:
    """(n,) int64: the 64 bits of integers of either sign."""
    return np.array([int(seed) & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64).view(np.int64)
