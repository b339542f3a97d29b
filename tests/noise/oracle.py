"""The operations of `mezo.noise`, computed the slow way: torch tensors in, `mezo.noise.spec` inside."""

from collections.abc import Sequence

import numpy as np
import torch

from mezo.noise import spec
from mezo.noise.matched import matched
from mezo.noise.where import Where

FORMATS = {torch.bfloat16: spec.BFLOAT16, torch.float16: spec.FLOAT16}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KINDS = ("gaussian", "rademacher")


def index(where: Where, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) int64: the global element index of every element of a view."""
    rows, cols = shape
    row_stride = cols if where.row_stride is None else where.row_stride
    return where.start + np.arange(rows)[:, None] * row_stride + np.arange(cols)[None]


def stored(x: np.ndarray, dtype: torch.dtype, bits: np.ndarray | None = None) -> torch.Tensor:
    """float32 (rows, columns) -> a tensor of `dtype`, rounded to nearest even or by rounding bits."""
    if dtype == torch.float32:
        return torch.from_numpy(np.where(np.isnan(x), np.float32(np.nan), x))
    values = spec.rounded(x, FORMATS[dtype], bits)
    if dtype == torch.float16:
        return torch.from_numpy(values.astype(np.float16))
    # not by torch: its conversion has NaNs of its own
    return torch.from_numpy((values.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)).view(dtype)


def perturbed(w: torch.Tensor, where: Where, seed: int, scale: float, kind: str) -> torch.Tensor:
    z = spec.noise(index(where, (w.shape[0], w.shape[1])), where.tensor_id, seed, kind)
    return stored(w.float().numpy() + np.float32(scale) * z, w.dtype)


def updated(
    w: torch.Tensor,
    where: Where,
    seeds: Sequence[int],
    coefficients: Sequence[float],
    *,
    decay: float = 1.0,
    rounding: str = "stochastic",
    rounding_seed: int = 0,
    kind: str = "gaussian",
) -> torch.Tensor:
    e = index(where, (w.shape[0], w.shape[1]))
    x = w.float().numpy()
    bits = spec.rounding_bits(e, where.tensor_id, rounding_seed)
    if rounding == "matched" and w.dtype in FORMATS and kind == "gaussian":
        by = matched(seeds, coefficients, FORMATS[w.dtype])
        if by is not None:
            x = spec.rounded(x * np.float32(decay), FORMATS[w.dtype], bits)
            u = spec.updated(np.zeros_like(x), e, where.tensor_id, seeds, coefficients)
            return stored(spec.moved(x, u, FORMATS[w.dtype], bits, by), w.dtype)
    x = spec.updated(x, e, where.tensor_id, seeds, coefficients, decay=decay, kind=kind)
    return stored(x, w.dtype, None if rounding == "nearest" else bits)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all bits are equal: unlike `torch.equal`, tells -0 from 0 and compares NaN."""
    whole = {4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))
