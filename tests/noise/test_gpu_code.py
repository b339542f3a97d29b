"""The Triton kernels without a GPU: their results in Triton's interpreter, their machine code read.

The interpreter is chosen by a variable that Triton reads when it is imported, hence a process of its own.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.noise.fresh import run

pytest.importorskip("triton")

# Small programs (16 lanes) and small views: the interpreter takes some 0.2 s a launch.
INTERPRETED = """
import itertools, sys
import numpy as np, torch
from mezo import noise
from mezo.noise import Where, gpu, spec
from tests.noise.oracle import DTYPES, KINDS, index, perturbed, same_bits, stored, updated
from tests.noise.test_rounding import every_value

gpu._LANES = 16
SEED = 0xFEDCBA9876543210
part = sys.argv[1]
np.seterr(over="ignore", invalid="ignore")

def weights(shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

if part == "views":
    places = [((3, 150), Where(7, 77)), ((3, 37), Where(2**32 - 1, 1990, 2**40 + 1))]
    for (shape, where), kind in itertools.product(places, KINDS):
        out = torch.empty(shape)
        gpu.fill_(out, where, SEED, kind, 2)
        assert same_bits(out, torch.from_numpy(spec.noise(index(where, shape), where.tensor_id, SEED, kind, 2)))
        for dtype in DTYPES:
            w = weights(shape, dtype)
            plus, minus = torch.empty_like(w), torch.empty_like(w)
            gpu.perturb(w, where, SEED, 1e-2, plus, minus, None, kind)
            assert same_bits(plus, perturbed(w, where, SEED, 1e-2, kind))
            assert same_bits(minus, perturbed(w, where, SEED, -1e-2, kind))
            gpu.perturb(w, where, SEED, 1e-2, w, None, None, kind)
            assert same_bits(w, plus)
        total = gpu.sum_of_squares(where, shape, SEED, kind, "cpu")
        assert total == noise.sum_of_squares(where, shape, SEED, kind=kind)
elif part == "updates":
    where, shape = Where(9, 77, 1000), (2, 37)
    directions = [([], []), ([SEED], [0.1]), ([1, SEED], [0.1, -0.2]), ([1, 2, 2**64 - 1], [1e-3, 1.0, -7.0])]
    for (seeds, a), dtype, kind in zip(directions * 3, itertools.cycle(DTYPES), itertools.cycle(KINDS)):
        for rounding in ("matched", "stochastic", "nearest") if dtype != torch.float32 else ("nearest",):
            w = weights((2, 50), dtype)[:, 5:42]
            expected = updated(w, where, seeds, a, decay=0.9, rounding=rounding, rounding_seed=SEED ^ 5, kind=kind)
            gpu.update_(w, where, seeds, a, 0.9, rounding, SEED ^ 5, kind)
            assert same_bits(w, expected), (seeds, kind, dtype, rounding)
elif part == "values":
    gpu._LANES = 4096
    for dtype, rounding in itertools.product(DTYPES[1:], ("matched", "stochastic", "nearest")):
        for a, decay in (([0.3], 1.0), ([1e-7], 1.0), ([3e38], 1.0), ([1e-7], 2.0**-9 * 0.7)):
            w = every_value(dtype)
            expected = updated(w, Where(2), [1], a, decay=decay, rounding=rounding, rounding_seed=4)
            gpu.update_(w, Where(2), [1], a, decay, rounding, 4, "gaussian")
            assert same_bits(w, expected), (dtype, rounding, a, decay)
elif part == "rows":
    for dtype in DTYPES:
        table, rows, where = weights((9, 33), dtype), torch.tensor([8, 0, 3, 3]), Where(5, 100)
        plus, minus = torch.empty(4, 33, dtype=dtype), torch.empty(4, 33, dtype=dtype)
        gpu.perturb(table, where, SEED, 0.1, plus, minus, rows, "gaussian")
        assert same_bits(plus, perturbed(table, where, SEED, 0.1, "gaussian")[rows])
        assert same_bits(minus, perturbed(table, where, SEED, -0.1, "gaussian")[rows])
    gpu.check_index = lambda index, weight: index  # as for an index on a GPU
    beyond, out = torch.tensor([3, 9, -1]), torch.zeros(3, 33)
    gpu.perturb(weights((9, 33), torch.float32), Where(5), SEED, 0.1, out, None, beyond, "gaussian")
    assert out.isnan().tolist() == [[False] * 33, [True] * 33, [True] * 33]
elif part == "groups":
    shapes, decays = [(3, 37), (0,), (150,), (2, 3, 5), (2, 60)], [0.9, 1.0, 1.0, 0.5, 0.75]
    noise._loaded["cpu"] = gpu
    for dtype, kind, extra in zip(DTYPES, itertools.cycle(KINDS), (0, 7, 0)):
        ws = [weights(shape, dtype) for shape in shapes]
        wheres = [Where(i, 50 * i) for i in range(len(ws))]
        view = [w if w.dim() == 2 else w.view(1, -1) for w in ws]
        group = noise.TensorGroup(ws, wheres)
        plus, minus = ([torch.empty(len(w), w.shape[1] + extra, dtype=dtype)[:, :w.shape[1]] if w.dim() == 2
                        else torch.empty_like(w) for w in ws] for _ in range(2))
        noise.perturb_pair_all(group, SEED, 1e-2, plus, minus, kind=kind)
        for v, where, p, m in zip(view, wheres, plus, minus):
            assert same_bits(p.reshape(v.shape), perturbed(v, where, SEED, 1e-2, kind))
            assert same_bits(m.reshape(v.shape), perturbed(v, where, SEED, -1e-2, kind))
        for rounding in ("matched", "stochastic"):
            expected = [updated(v, where, [1, SEED], [1e-3, -2e-3], decay=d, rounding_seed=SEED, kind=kind,
                                rounding=rounding) for v, where, d in zip(view, wheres, decays)]
            noise.update_all_(group, [1, SEED], [1e-3, -2e-3], decays=decays, rounding=rounding,
                              rounding_seed=SEED, kind=kind)
            assert all(same_bits(v, e) for v, e in zip(view, expected))
        expected = [perturbed(v, where, SEED, 1e-2, kind) for v, where in zip(view, wheres)]
        noise.perturb_all(group, SEED, 1e-2, group.weights, kind=kind)
        assert all(same_bits(v, e) for v, e in zip(view, expected))
elif part == "each":
    for (start, count), kind in itertools.product(((0, 5), (77, 300), (2**40 + 3, 40)), KINDS):
        seeds, out = [SEED, 3, 2**64 - 1], torch.full((3, count), torch.nan)
        gpu.fill_each_(out, Where(2**32 - 1, start), seeds, kind)
        for row, seed in zip(out, seeds):
            z = spec.noise(start + np.arange(count), 2**32 - 1, seed, kind)
            assert same_bits(row, torch.from_numpy(z)), (start, kind)
elif part == "store":
    where, values = Where(9, 77, 1000), torch.randn(2, 50, generator=torch.Generator().manual_seed(0))[:, 5:42]
    for dtype, rounding in itertools.product(DTYPES, ("stochastic", "nearest")):
        w = torch.zeros(2, 37, dtype=dtype)
        bits = spec.rounding_bits(index(where, w.shape), 9, SEED) if rounding == "stochastic" else None
        gpu.store_(w, where, values, rounding, SEED)
        assert same_bits(w, stored(values.numpy(), dtype, bits))
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["views", "updates", "values", "rows", "groups", "each", "store"])
def test_interpreted_kernels_equal_the_specification(part: str) -> None:
    output, _ = run(INTERPRETED, part, TRITON_INTERPRET="1")
    assert output.endswith("equal\n")


def compiled(
    name: str, constants: dict[str, Any], capability: int, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The forms of a kernel, by default with the options that the launches use; "cubin" is machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mezo.noise import gpu, gpu_kernels, gpu_updates

    kernel = getattr(gpu_updates if hasattr(gpu_updates, name) else gpu_kernels, name)
    pointers = dict.fromkeys(("w", "plus", "minus"), MEMORY[constants.get("FORM", 0)])
    constants = {**{k: v for k, v in constants.items() if k in kernel.arg_names}, "LANES": 256}
    signature = {**SCALARS, **pointers, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options or gpu.OPTIONS).asm


FUSED = re.compile(r"\b(fma|mad)\.(?!lo|hi|wide)[\w.]*f32")
FUSIBLE = re.compile(
    r"\b(add|sub|mul)\.(?!rn)[\w.]*f32"
)  # what the assembler may fuse: not rounded by its own name
OFFSET = re.compile(r"tt\.addptr .*?: tensor<\w+x!tt\.ptr<\w+>>, tensor<\w+x(i\d+)>")
MEMORY = {0: "*fp32", 1: "*i16", 2: "*i16"}
SCALARS = {
    **dict.fromkeys(("tensor", "purpose"), "u32"),
    **dict.fromkeys(("seed", "rounding_seed"), "u64"),
    **dict.fromkeys(("cols", "programs", "directions", "height"), "i32"),
    **dict.fromkeys(
        ("start", "row_stride", "w_stride", "out_stride", "plus_stride", "minus_stride", "values_stride"),
        "i64",
    ),
    **dict.fromkeys(("scale", "decay"), "fp32"),
    **dict(
        index="*i64",
        seeds="*i64",
        arguments="*i64",
        table="*i64",
        owner="*i32",
        sums="*i64",
        out="*fp32",
        values="*fp32",
    ),
}


@pytest.fixture(autouse=True)
def triton_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


CODE: list[tuple[str, dict[str, Any]]] = [
    ("fill", {}),
    ("fill_each", {}),
    ("sum_of_squares", {}),
    ("perturb", dict(FORM=0, PAIR=True, INDEXED=False)),
    ("perturb", dict(FORM=1, PAIR=True, INDEXED=True)),
    ("update", dict(FORM=0, ROUNDING=0)),
    ("update", dict(FORM=1, ROUNDING=1)),
    ("update", dict(FORM=2, ROUNDING=1)),
    ("update", dict(FORM=1, ROUNDING=2)),
    ("update", dict(FORM=2, ROUNDING=2)),
    ("store_values", dict(FORM=1, ROUNDING=1)),
    ("store_values", dict(FORM=2, ROUNDING=1)),
    ("perturb_all", dict(FORM=0, PAIR=True)),
    ("perturb_all", dict(FORM=1, PAIR=False)),
    ("update_all", dict(FORM=0, ROUNDING=0)),
    ("update_all", dict(FORM=1, ROUNDING=2)),
]


def test_every_kernel_that_is_launched_is_compiled_here() -> None:
    source = Path(__file__).parents[2] / "src" / "mezo" / "noise" / "gpu.py"
    launched = set(re.findall(r"\b(?:kernels|updates)\.(\w+)", source.read_text()))
    assert launched == {name for name, _ in CODE}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "capability"), [(0, 80), (0, 90), (0, 100), (1, 90), (1, 100)])
@pytest.mark.parametrize(("name", "constants"), CODE)
def test_compiled_kernels_fuse_nothing(
    name: str, constants: dict[str, Any], kind: int, capability: int
) -> None:
    """No f32 multiply-add, no flushing of subnormals, a correctly rounded square root; offsets of 64 bits."""
    forms = compiled(name, {**constants, "KIND": kind}, capability)
    ptx = forms["ptx"]
    assert f".target sm_{capability}" in ptx
    assert forms["cubin"], "the assembler takes it"
    assert not FUSED.search(ptx)
    assert not FUSIBLE.search(ptx)
    assert set(OFFSET.findall(forms["ttir"])) == ({"i64"} if name != "sum_of_squares" else set())
    assert ".ftz" not in ptx
    assert set(re.findall(r"\bsqrt\.[\w.]+", ptx)) == (
        {"sqrt.rn.f32"} if kind == 0 and "store" not in name else set()
    )


@pytest.mark.slow
def test_fused_operations_would_be_seen() -> None:
    """The same kernel, with the option that every launch must not have."""
    constants = dict(FORM=0, PAIR=False, INDEXED=False, KIND=0)
    ptx = compiled("perturb", constants, 90, dict(enable_fp_fusion=True))["ptx"]
    assert FUSED.search(ptx)
    assert FUSIBLE.search(ptx)
