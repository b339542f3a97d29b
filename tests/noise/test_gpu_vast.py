"""Tensors of more than 2^31 elements on a GPU: every offset is right, shown in Triton's interpreter.

The memory is mapped and mostly never touched, and of a row of a million programs the last ones alone are run.
"""

import pytest
from tests.noise.fresh import run

pytest.importorskip("triton")

INTERPRETED = """
import mmap, sys
import numpy as np, torch
from triton.runtime import interpreter
from mezo import noise
from mezo.noise import Where, gpu, spec
from tests.noise.oracle import same_bits, stored

SEED, part = 0xFEDCBA9876543210, sys.argv[1]
FAR = 2**31 + 1000  # elements
gpu._LANES = 256

def vast(elements):
    # bfloat16 zeros of memory that exists where it is touched alone
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE, which Python 3.11 does not name
    raw = np.frombuffer(mmap.mmap(-1, 2 * elements, flags=flags), np.int16)
    return torch.from_numpy(raw).view(torch.bfloat16)

def last(count):
    # the interpreter numbers the programs from the last `count` on
    grids = []
    def launched(kernel, programs, first, *others):
        grids.append(programs)
        place = interpreter.interpreter_builder.set_grid_idx
        def later(x, y, z):
            interpreter.interpreter_builder.grid_idx = (x + programs - count, y, z)
        interpreter.interpreter_builder.set_grid_idx = later
        try:
            kernel[(count,)](first, *others, gpu._LANES, **gpu.OPTIONS)
        finally:
            interpreter.interpreter_builder.set_grid_idx = place
    gpu._run = launched
    return grids

def at(index, where):
    return spec.noise(where.start + index, where.tensor_id, SEED)

SIZE = 256 * 8  # elements of a program
if part == "one row":
    w, where = vast(FAR).view(1, -1), Where(3, 77)
    grids = last(2)
    tail = np.arange(FAR - SIZE // 2, FAR)
    z = at(tail, where)[None]
    gpu.update_(w, where, [SEED], [0.5], 1.0, "nearest", 0, "gaussian")
    assert grids == [-(-(FAR + 127) // SIZE)] and grids[0] > 2**20
    assert same_bits(w[:, tail[0]:], stored(np.float32(0.5) * z, w.dtype))
    assert not w[:, :4096].any() and not w[:, 2**31 - 2**22 : 2**31 - 2**20].any()
    out = vast(FAR).view(1, -1)
    gpu.perturb(w, where, SEED, 0.25, out, None, None, "gaussian")
    expected = stored(w[:, tail[0]:].float().numpy() + np.float32(0.25) * z, w.dtype)
    assert same_bits(out[:, tail[0]:], expected)
    group = noise.TensorGroup([w], [where])
    noise._loaded["cpu"] = gpu
    noise.perturb_all(group, SEED, 0.25, [w])
    assert same_bits(w[:, tail[0]:], expected)
    assert not w[:, :4096].any() and not w[:, 2**31 - 2**22 : 2**31 - 2**20].any()
elif part == "rows far apart":
    rows, cols = 3, 300
    w = vast(2 * FAR + cols).as_strided((rows, cols), (FAR, 1))  # the last row begins beyond 2^32
    where = Where(5, 11, FAR)
    index = np.arange(rows)[:, None] * FAR + np.arange(cols)
    expected = stored(np.float32(0.5) * at(index, where), w.dtype)
    gpu.update_(w, where, [SEED], [0.5], 1.0, "nearest", 0, "gaussian")
    assert same_bits(w, expected)
    out = torch.empty(2, cols, dtype=w.dtype)
    gpu.perturb(w, where, SEED, 0.0, out, None, torch.tensor([2, 0]), "gaussian")
    assert same_bits(out, expected[[2, 0]])
    gpu.store_(w, where, torch.full((rows, cols), 2.0), "nearest", 0)
    assert bool((w == 2).all())
elif part == "many seeds":
    # out + row * cols: rows of 2^30 elements, of which the third ends beyond 2^31
    cols, seeds = 2**30, [4, 5, SEED]
    out = torch.from_numpy(vast(2 * 3 * cols).view(torch.int16).numpy().view(np.float32)).view(3, cols)
    last(3)
    gpu.fill_each_(out, Where(9), seeds, "gaussian")
    tail = np.arange(cols - SIZE // 2, cols)
    assert np.array_equal(out[2, tail[0]:].numpy(), spec.noise(tail, 9, SEED))
    assert not out[0, -4096:].any()
print("equal")
"""


@pytest.mark.parametrize("part", ["one row", "rows far apart", "many seeds"])
def test_offsets_beyond_32_bits(part: str) -> None:
    output, _ = run(INTERPRETED, part, TRITON_INTERPRET="1")
    assert output.endswith("equal\n")
