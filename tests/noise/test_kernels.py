"""The kernels against the specification: every bit, however the tensor is cut, on every device at hand."""

import math

import numpy as np
import pytest
import torch
from tests.noise.oracle import DTYPES, KINDS, index, perturbed, same_bits, updated

from mezo import noise
from mezo.noise import spec
from mezo.noise.where import Where

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
SEED = 0xFEDCBA9876543210  # both halves, and the sign bit of a signed 64-bit integer, in use

# rows, columns, start, row stride; odd sizes, blocks cut at either end, counters beyond 32 bits
VIEWS = {
    "one element": (1, 1, 0, None),
    "fifteen": (1, 15, 127, None),
    "a block": (1, 128, 0, None),
    "odd": (3, 1001, 77, None),
    "blocks": (2, 4096, 2048, None),
    "column shard": (5, 37, 11, 1000),
    "wide column shard": (4, 700, 1300, 2100),
    "far away": (2, 300, 2**40 + 12345, 2**33 + 17),
}
views = pytest.mark.parametrize("view", VIEWS)
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
devices = pytest.mark.parametrize("device", DEVICES)


def place(view: str, tensor: int = 0x9E3779B9) -> tuple[tuple[int, int], Where]:
    rows, cols, start, row_stride = VIEWS[view]
    return (rows, cols), Where(tensor, start, row_stride)


def weights(shape: tuple[int, int], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@devices
@kinds
@views
def test_fill(view: str, kind: noise.Kind, device: str) -> None:
    shape, where = place(view)
    for purpose in (noise.PERTURBATION, noise.INITIALISATION):
        out = torch.full(shape, math.nan, device=device)
        noise.fill_(out, where, SEED, kind=kind, purpose=purpose)
        expected = spec.noise(index(where, shape), where.tensor_id, SEED, kind, purpose)
        assert same_bits(out.cpu(), torch.from_numpy(expected))


@devices
@dtypes
@kinds
@views
def test_perturb(view: str, kind: noise.Kind, dtype: torch.dtype, device: str) -> None:
    shape, where = place(view)
    w = weights(shape, dtype)
    up, down = (perturbed(w, where, SEED, scale, kind) for scale in (1e-2, -1e-2))
    given = w.to(device, copy=True)
    out, plus, minus = (torch.empty_like(given) for _ in range(3))
    noise.perturb(given, where, SEED, 1e-2, out, kind=kind)
    noise.perturb_pair(given, where, SEED, 1e-2, plus, minus, kind=kind)
    assert same_bits(given.cpu(), w)
    assert same_bits(out.cpu(), up)
    assert same_bits(plus.cpu(), up)
    assert same_bits(minus.cpu(), down)
    noise.perturb(given, where, SEED, 1e-2, given, kind=kind)
    assert same_bits(given.cpu(), up)


@devices
@pytest.mark.parametrize("rounding", ["matched", "stochastic", "nearest"])
@dtypes
@kinds
@views
def test_update(view: str, kind: noise.Kind, dtype: torch.dtype, rounding: str, device: str) -> None:
    shape, where = place(view)
    for seeds, coefficients, decay in (
        ([SEED], [-3e-3], 1.0),
        ([1, SEED], [0.5, -0.25], 0.9),
        ([5, 2**32, 2**64 - 1], [1e-3, 1e-4, -7.0], 1 - 1e-5),
        ([], [], 0.75),
    ):
        w = weights(shape, dtype)
        given = w.to(device, copy=True)
        settings = dict(decay=decay, rounding=rounding, rounding_seed=SEED ^ 5, kind=kind)
        noise.update_(given, where, seeds, coefficients, **settings)  # type: ignore[arg-type]
        assert same_bits(given.cpu(), updated(w, where, seeds, coefficients, **settings))  # type: ignore[arg-type]


@devices
@dtypes
def test_strided_tensors_are_read_and_written_in_place(dtype: torch.dtype, device: str) -> None:
    """Rows apart in memory, for the weight, the output, or both; what lies between them stays."""
    where = Where(3, 50)
    w = weights((6, 90), dtype)
    whole = torch.full((6, 200), 7.0, dtype=dtype, device=device)
    inner, packed = whole[:, 60:150], w.to(device, copy=True)
    expected = perturbed(w, where, SEED, 0.5, "gaussian")
    noise.perturb(packed, where, SEED, 0.5, inner)
    assert same_bits(inner.cpu(), expected)
    inner.copy_(w)
    out = torch.empty_like(packed)
    noise.perturb(inner, where, SEED, 0.5, out)
    assert same_bits(out.cpu(), expected)
    noise.update_(inner, where, [SEED], [0.5], rounding="nearest")
    assert same_bits(inner.cpu(), expected)
    inner.fill_(7.0)
    assert (whole == 7.0).all()


@devices
@dtypes
@kinds
def test_rows_of_a_table(dtype: torch.dtype, kind: noise.Kind, device: str) -> None:
    """An embedding look-up: each chosen row as it is in the perturbed table."""
    where = Where(9, 128)
    table = weights((50, 33), dtype)
    rows = torch.tensor([49, 0, 7, 7, 31, 0])
    plus, minus, out = (torch.empty(6, 33, dtype=dtype, device=device) for _ in range(3))
    noise.perturb_pair(table.to(device), where, SEED, 0.1, plus, minus, rows=rows.to(device), kind=kind)
    noise.perturb(table.to(device), where, SEED, 0.1, out, rows=rows.to(device), kind=kind)
    assert same_bits(plus.cpu(), perturbed(table, where, SEED, 0.1, kind)[rows])
    assert same_bits(minus.cpu(), perturbed(table, where, SEED, -0.1, kind)[rows])
    assert same_bits(out, plus)


@devices
@dtypes
@kinds
def test_shards_see_the_noise_of_the_whole(dtype: torch.dtype, kind: noise.Kind, device: str) -> None:
    """Row blocks and column shards (several rows each) of one matrix, each worked on alone."""
    rows, cols = 7, 1000
    whole = weights((rows, cols), dtype).to(device)
    expected = whole.clone()
    arguments = ([3, SEED], [0.1, 0.2])
    noise.update_(expected, Where(5), *arguments, rounding_seed=8, kind=kind)
    for height, width in ((1, cols), (3, cols), (rows, 333), (2, 128), (4, 77)):
        cut = whole.clone()
        total = 0
        for r in range(0, rows, height):
            for c in range(0, cols, width):
                shard = cut[r : r + height, c : c + width].contiguous()
                where = Where(5, r * cols + c, cols)
                noise.update_(shard, where, *arguments, rounding_seed=8, kind=kind)
                total += noise.sum_of_squares(
                    where, (shard.shape[0], shard.shape[1]), 3, kind=kind, device=device
                )
                cut[r : r + height, c : c + width] = shard
        assert same_bits(cut, expected)
        assert total == noise.sum_of_squares(Where(5), (rows, cols), 3, kind=kind, device=device)


@devices
@kinds
def test_sum_of_squares_is_the_norm(kind: noise.Kind, device: str) -> None:
    z = spec.noise(np.arange(5000) + 9, 4, SEED, kind)
    total = noise.sum_of_squares(Where(4, 9), (5, 1000), SEED, kind=kind, device=device)
    assert total == int((np.rint(z.astype(np.float64) * 4096).astype(np.int64) ** 2).sum())
    # rounding to 1/4096 moves each z by at most 1/8192, and 5000 of them by sqrt(5000)/8192 together
    assert abs(math.sqrt(total) / 4096 - np.linalg.norm(z.astype(np.float64))) < math.sqrt(5000) / 8192


def test_tied_weights_share_their_noise_and_others_do_not() -> None:
    z = {name: torch.empty(1, 4096) for name in ("embed", "head", "other")}
    ids = {
        "embed": noise.tensor_id("embed"),
        "head": noise.tensor_id("embed"),
        "other": noise.tensor_id("other"),
    }
    for name, out in z.items():
        noise.fill_(out, Where(ids[name]), SEED)
    assert torch.equal(z["embed"], z["head"])
    assert not (z["embed"] == z["other"]).any()


def test_probing_at_zero_scale_is_the_weight() -> None:
    for dtype in DTYPES:
        w = weights((3, 777), dtype)
        out = torch.empty_like(w)
        noise.perturb(w, Where(1), SEED, 0.0, out)
        assert torch.equal(out, w)


def test_gradients_do_not_matter() -> None:
    """Parameters that require a gradient are updated all the same, and no graph is recorded."""
    w = torch.nn.Parameter(torch.zeros(2, 64))
    noise.update_(w, Where(1), [2], [1.0])
    assert w.is_leaf
    assert torch.equal(w.detach(), torch.from_numpy(spec.noise(np.arange(128).reshape(2, 64), 1, 2)))
