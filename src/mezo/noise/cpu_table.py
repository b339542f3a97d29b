"""The argument of a kernel: the address of a call, which names a table of tensors, cut into pieces.

Both are int64 words, laid out below. Threads take pieces by incrementing `TAKEN`, so their number and speed do not
matter.
"""

from typing import Any, Final

from numba import carray  # pyright: ignore[reportPrivateImportUsage]

from mezo.noise.cpu_jit import L, inline, pointer

# A call. SCALE is a float64; SEEDS (int64) and COEFFICIENTS (float32) are addresses of DIRECTIONS of
# them; LEVELS of five float32, a `matched.Matched`.
TAKEN, PIECES, TABLE, TENSORS, KIND, SEED, SCALE, PURPOSE = range(8)
SEEDS, COEFFICIENTS, DIRECTIONS, ROUNDING, ROUNDING_SEED, TOTAL, LEVELS = range(8, 15)
WORDS: Final = 16

# A row of the table, a tensor. WEIGHT, PLUS, MINUS, INDEX: addresses, the last two 0 without one;
# *_STRIDE: bytes from one row to the next; START, ROW_STRIDE, ID: the `Where`; DECAY: the bits of a
# float32; BEFORE: the pieces of the tensors before this one.
WEIGHT, WEIGHT_STRIDE, PLUS, PLUS_STRIDE, MINUS, MINUS_STRIDE, INDEX = range(7)
HEIGHT, WIDTH, START, ROW_STRIDE, ID, DECAY, BEFORE = range(7, 14)
COLUMNS: Final = 14

# Updates in turn have no outputs: in their place a row has the address of its steps, and their number. A
# step: SEEDS, COEFFICIENTS and LEVELS are addresses as in a call, DECAY as in a row.
STEPS, HOW_MANY = PLUS, PLUS_STRIDE
STEP_SEEDS, STEP_COEFFICIENTS, STEP_DIRECTIONS, STEP_DECAY, STEP_ROUNDING = range(5)
STEP_ROUNDING_SEED, STEP_LEVELS = 5, 6
STEP_WORDS: Final = 7

PIECE: Final = 1 << 14  # elements; some 10 us of Gaussian work
_UNIT: Final = 2048  # long rows are cut where a block of the stream ends, so that no block is made twice


def pieces(height: int, width: int, start: int) -> int:
    """How many pieces `piece` cuts a tensor of height rows and width columns into."""
    if width > PIECE:
        return height * -(-(width + start % _UNIT) // PIECE)
    return -(-height // (PIECE // width)) if width else 0


@inline
def piece(tensor: Any, number: Any) -> Any:
    """(first row, rows, first column, columns) of piece `number` of a tensor, a row of the table."""
    height, width = tensor[HEIGHT], tensor[WIDTH]
    if width > PIECE:
        skipped = tensor[START] % _UNIT
        across = (width + skipped + PIECE - 1) // PIECE
        row, left = number // across, (number % across) * PIECE - skipped
        return row, L(1), max(L(0), left), min(width, left + PIECE) - max(L(0), left)
    rows = PIECE // width
    row = number * rows
    return row, min(rows, height - row), L(0), width


@inline
def row_of(address: Any, like: Any, width: Any, left: Any, right: Any) -> Any:
    """Columns [left, right) of a row of `width` elements at `address`."""
    return carray(pointer(address, like), (width,))[left:right]


@inline
def words(address: Any) -> Any:
    return carray(pointer(address, L(0)), (WORDS,))


@inline
def table(call: Any) -> Any:
    return carray(pointer(call[TABLE], L(0)), (call[TENSORS], COLUMNS))


@inline
def find(tensors: Any, at: Any, number: Any) -> Any:
    """The row of the table that piece `number` belongs to, which is `at` or comes after it."""
    while at + 1 < len(tensors) and tensors[at + 1, BEFORE] <= number:
        at += 1
    return at
