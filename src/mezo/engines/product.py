"""x @ W^T, by the fastest exact library at hand.

For float32, torch asks MKL, which on processors that are not Intel's takes a path of half their
speed; oneDNN, which torch carries too, does not (measured on an AMD Zen 5: 470 against 215 GFLOP/s
on two cores). Both compute in float32. The choice depends on the processor alone, never on a
measurement, so that the same machine gives the same bits in every run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

# oneDNN keeps what it compiled for a shape, 1,024 shapes of it. Batches of text have ever new ones: 400 MB
# in 2,000 steps. A few steps' worth is as fast (measured). Read by oneDNN at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

_plain = False


@contextmanager
def plain() -> Iterator[None]:
    """Inside the block products are torch.mm's: for measuring what the other path brings."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@cache
def _amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def by_onednn(x: torch.Tensor) -> bool:
    """Whether products with tensors like x go through oneDNN."""
    return (
        not _plain
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and _amd()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., in) and (out, in) -> (..., out): what torch.nn.functional.linear returns."""
    if by_onednn(x) and x.numel():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return torch.nn.functional.linear(x, weight, bias)


def linear_into(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """out (rows, n) = x (rows, in) @ weight (n, in)^T + bias (n,); out may be a slice of columns."""
    if by_onednn(x) and x.numel():
        out.copy_(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))
    elif bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)
