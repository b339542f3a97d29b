"""Which elements a Triton program works on: LANES lanes of eight elements each, of one row.

start, row_stride, tensor: the `Where`. programs: how many cover a row.
"""

# Outside a kernel, Triton's functions only raise: a type checker takes their results for nothing.
# pyright: reportGeneralTypeIssues=false

# pyright: reportInvalidTypeForm=false

import triton
import triton.language as tl

from mezo.noise.gpu_formats import FLOAT32
from mezo.noise.gpu_table import (
    COLUMNS,
    FIRST,
    PROGRAMS,
    ROW_STRIDE,
    START,
)

PLAIN = [
    "tensor",
    "seed",
    "start",
    "row_stride",
    "cols",
    "programs",
]  # parameters of which no value is special


@triton.jit
def lanes(piece, g, LANES: tl.constexpr):
    """(counters of the lanes, column of each lane's first element), int64, for a row that starts at index g."""
    c = (g >> 7) * 16 + piece.to(tl.int64) * LANES + tl.arange(0, LANES)
    return c, (c >> 4) * 128 + (c & 15) - g


@triton.jit
def memory(address, FORM: tl.constexpr):
    if FORM == FLOAT32:
        pointer = address.to(tl.pointer_type(tl.float32))
    else:
        pointer = address.to(tl.pointer_type(tl.int16))
    return pointer


@triton.jit
def member(table, owner, LANES: tl.constexpr):
    """(its number, row of it, row of the table, counters, columns) of this program's tensor; see `gpu_table`."""
    number = tl.load(owner + tl.program_id(0))
    entry = table + number * COLUMNS
    mine = tl.program_id(0) - tl.load(entry + FIRST)
    programs = tl.load(entry + PROGRAMS)
    row = mine // programs
    c, o = lanes(mine % programs, tl.load(entry + START) + row * tl.load(entry + ROW_STRIDE), LANES)
    return number, row, entry, c, o
