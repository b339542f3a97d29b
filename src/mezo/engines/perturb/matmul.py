"""x @ W^T, by the fastest exact library available.

Which one that is depends on processor, dtype and shapes. For float32, MKL takes a slow path on some processors where
oneDNN does not. Processors without bfloat16 instructions multiply 16-bit matrices many times slower than float32:
there weights are widened a block at a time. `measured` times the ways on a model's own shapes, once for a machine.

All ways sum in float32, in different orders, so their bits differ: a run keeps the way it began with
(`MeZOConfig.matmul`).
"""

import hashlib
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from mezo.models.smollm2 import cache_folder
from mezo.util.atomic_files import write_text
from mezo.util.parsing import parse_json

# oneDNN keeps what it compiled for a shape, 1,024 shapes of it. Batches of text have ever new ones: 400 MB
# in 2,000 steps. A few steps' worth is as fast (measured). Read by oneDNN at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# torch: as torch does it. onednn: by oneDNN. float32, float32-onednn: 16-bit operands widened, then like these.
Matmul = Literal["torch", "onednn", "float32", "float32-onednn"]
WAYS: dict[torch.dtype, tuple[Matmul, ...]] = {
    torch.float32: ("torch", "onednn"),
    torch.bfloat16: ("torch", "float32", "float32-onednn"),
    torch.float16: ("torch", "float32", "float32-onednn"),
}
_WIDENED = 1 << 19  # elements that are widened at a time: both forms stay in a core's own cache
_CLEARLY = 0.9  # of the time of the usual way; nearer than that is noise
_OPERATIONS, _ROUNDS, _SHAPES = 4e8, 5, 3  # of one timed product; of each; that are timed

_chosen: dict[torch.dtype, Matmul] = {}


def use(dtype: torch.dtype, matmul: Matmul) -> None:
    """From now on products of tensors of this type go this way, in this process."""
    _chosen[dtype] = matmul


@contextmanager
def plain() -> Iterator[None]:
    """Inside the block products are torch's own: for measuring what another way brings."""
    before = dict(_chosen)
    _chosen.update(dict.fromkeys(WAYS, "torch"))
    try:
        yield
    finally:
        _chosen.clear()
        _chosen.update(before)


def way(x: torch.Tensor) -> Matmul:
    """How products with tensors like x are computed."""
    if x.device.type != "cpu":
        return "torch"
    return _chosen.get(x.dtype) or usual(x.dtype)


def usual(dtype: torch.dtype) -> Matmul:
    """What is taken without a measurement, and where none is clearly better."""
    return "onednn" if dtype == torch.float32 and "AuthenticAMD" in _cpuinfo() and has_onednn() else "torch"


@cache
def has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def _cpuinfo() -> str:
    with suppress(OSError):
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    return ""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., in) and (out, in) -> (..., out): what torch.nn.functional.linear returns."""
    how = way(x) if x.numel() else "torch"
    if how == "torch":
        return torch.nn.functional.linear(x, weight, bias)
    if how == "onednn":
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    out = x.new_empty(*x.shape[:-1], len(weight))
    _widened_into(out.view(-1, len(weight)), x.reshape(-1, x.shape[-1]), weight, bias, how)
    return out


def linear_into(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """out (rows, n) = x (rows, in) @ weight (n, in)^T + bias (n,); out may be a slice of columns."""
    how = way(x) if x.numel() else "torch"
    if how == "onednn":
        out.copy_(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))
    elif how != "torch":
        _widened_into(out, x, weight, bias, how)
    elif bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def _widened_into(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: Matmul
) -> None:
    wide, rows = x.float(), max(1, _WIDENED // max(1, weight.shape[1]))
    for start in range(0, len(weight), rows):
        part = weight[start : start + rows].float()
        added = None if bias is None else bias[start : start + rows].float()
        if how == "float32-onednn":
            product = torch.ops.mkldnn._linear_pointwise(wide, part, added, "none", [], "")
        else:
            product = torch.nn.functional.linear(wide, part, added)
        out[:, start : start + rows] = product


def has_wide_products(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `wide_product` takes them: 16-bit operands of one type on a device that can."""
    return x.is_cuda and x.dtype == weight.dtype and x.dtype != torch.float32 and _sums(x.device, x.dtype)


def wide_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(n, in) and (out, in) of 16 bits -> (n, out) in float32: sums of float32 that are not rounded to 16 bits.

    What widening both would give but for the order of the sums, at the speed of 16-bit products.
    """
    return torch.mm(x, weight.t(), out_dtype=torch.float32)


@cache
def _sums(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch can (from 2.8 on), found out once for a device, by comparing."""
    x = torch.linspace(-1, 2, 24 * 40, device=device).to(dtype).view(24, 40)
    weight = torch.linspace(3, -1, 16 * 40, device=device).to(dtype).view(16, 40)
    try:
        found = wide_product(x, weight)
    except (RuntimeError, TypeError):
        return False
    return torch.allclose(found, x.float() @ weight.float().t(), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------ which one


class Measured(NamedTuple):
    """What was found for a model: the way, and how many times as long each takes as the fastest."""

    matmul: Matmul
    times: dict[str, float]

    def in_words(self) -> str:
        others = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self.times.items() if name != self.matmul)
        return f"{self.matmul} ({others} times as long)" if others else self.matmul


@torch.no_grad()
def measured(model: nn.Module, dtype: torch.dtype) -> Measured:
    """The fastest way for the shapes of a model's linear layers, from this machine's cache or by trying."""
    if next(model.parameters()).device.type != "cpu" or dtype not in WAYS:
        return Measured("torch", {})
    shapes = _shapes(model)
    ways: list[Matmul] = [w for w in WAYS[dtype] if "onednn" not in w or has_onednn()]
    if not shapes or len(ways) < 2:
        return Measured(usual(dtype), {})
    key = _key(dtype, shapes)
    known = _read()
    times = _times_in(known.get(key), ways)
    if times is None:
        times = _time(shapes, dtype, ways)
        with suppress(OSError):  # without a cache the next start measures again
            cache_folder().mkdir(parents=True, exist_ok=True)
            write_text(cache_folder() / "matmul.json", json.dumps({**known, key: times}, indent=1) + "\n")
    common, fastest = usual(dtype), min(times, key=times.__getitem__)
    chosen = fastest if times[fastest] < _CLEARLY * times[common] else common
    least = min(times.values())
    return Measured(chosen, {name: seconds / least for name, seconds in times.items()})


def _shapes(model: nn.Module) -> list[tuple[int, int]]:
    """(out, in) of the linear layers that most of the work is in, the heaviest first."""
    work: Counter[tuple[int, int]] = Counter()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            work[module.out_features, module.in_features] += module.out_features * module.in_features
    return [shape for shape, _ in work.most_common(_SHAPES)]


def _time(
    shapes: Sequence[tuple[int, int]], dtype: torch.dtype, ways: Sequence[Matmul]
) -> dict[Matmul, float]:
    """Seconds of one product of each shape, the median of a few rounds in which the ways take turns."""
    total: dict[Matmul, float] = dict.fromkeys(ways, 0.0)
    with plain():
        for rows_out, rows_in in shapes:
            tokens = min(256, max(16, int(_OPERATIONS / (2 * rows_out * rows_in))))
            x, weight = torch.ones(tokens, rows_in, dtype=dtype), torch.ones(rows_out, rows_in, dtype=dtype)
            seen: dict[Matmul, list[float]] = {name: [] for name in ways}
            for _ in range(_ROUNDS + 1):
                for name in ways:
                    use(dtype, name)
                    began = time.perf_counter()
                    linear(x, weight)
                    seen[name].append(max(time.perf_counter() - began, 1e-9))
            for name in ways:
                total[name] += statistics.median(seen[name][1:])  # the first one compiles
    return total


def _key(dtype: torch.dtype, shapes: Sequence[tuple[int, int]]) -> str:
    """Names what a measurement depends on: processor, library, threads, type, shapes."""
    lines = [line for line in _cpuinfo().splitlines() if line.startswith(("model name", "flags"))]
    what = (lines, torch.__version__, torch.get_num_threads(), str(dtype), list(shapes))
    return hashlib.blake2b(repr(what).encode(), digest_size=8).hexdigest()


def _read() -> dict[str, Any]:
    """The cache of all measurements; {} without a readable one."""
    with suppress(OSError, ValueError):
        found = parse_json((cache_folder() / "matmul.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _times_in(found: Any, ways: Sequence[Matmul]) -> dict[Matmul, float] | None:
    with suppress(ValueError, TypeError, KeyError):
        times: dict[Matmul, float] = {name: float(found[name]) for name in ways}
        if all(0 < seconds < float("inf") for seconds in times.values()):
            return times
    return None
