"""Probes along low-rank directions: one product with the unperturbed layer, and a thin term for each probe.

With z = left^T right of rank r (`mezo.weights.low_rank_noise`), a matrix (rows, columns) takes x to

    x (W + s left^T right)^T = x W^T + s (x right^T) left

so W is neither copied nor written, and each probe adds (rows + columns) r operations a token. Equal to W + s z but
for rounding; better in 16 bits, where W + s z would be rounded to the type of W.
"""

from collections.abc import Iterator
from typing import Any

import torch

from mezo.engines.perturb import dealt, matmul
from mezo.engines.perturb.probed import Probed
from mezo.engines.perturb.raw_reads import knowing
from mezo.weights.tunable import Tunable

# Up to this rank float32 is faster one component at a time: MKL multiplies by so thin a matrix at a
# fraction of the speed of memory (480 tokens, rank 2, 576 -> 1536 features: 297 us, and 83 us so)
_THIN = 2


def linear(
    probing: Probed,
    t: Tunable,
    inputs: torch.Tensor,
    bias: torch.Tensor | None,
    biases: list[torch.Tensor] | None,
    *,
    transposed: bool = False,
    rows: slice = slice(None),
) -> torch.Tensor:
    """(P, n, in) -> (P, n, out), in the dtype of the inputs.

    bias: shared; or biases: one for each probe. transposed: the matrix is (in, out), as in GPT-2. rows: of the
    matrix.
    """
    count = len(probing.probes)
    one = inputs[:1] if count > 1 and inputs.stride(0) == 0 else inputs  # shared by all probes
    with knowing():
        weight = t.rows()[rows].to(inputs.dtype)
        out = matmul.linear(one, weight.t() if transposed else weight, bias)
    if len(out) != count:
        out = out.repeat(count, 1, 1)
    if probing.deal is not None:
        dealt.add_terms_(probing, t, out, one, transposed=transposed, rows=rows)
    for i, scale, left, right in () if probing.deal is not None else terms(probing, t, out.dtype):
        narrow, wide = (left, right) if transposed else (right, left[:, rows])
        add_(out[i], inputs[i] @ narrow.t(), wide, scale)
    for i, own in enumerate(biases or ()):
        out[i] += own
    return out


def embedding(probing: Probed, t: Tunable, ids: torch.Tensor) -> torch.Tensor:
    """(P, n) token ids -> (P, n, columns): the rows looked up, and their part of each term."""
    with knowing():
        out = t.tensor.detach().index_select(0, ids.reshape(-1)).view(*ids.shape, -1)
    for i, scale, left, right in terms(probing, t, out.dtype):
        add_(out[i], left.index_select(1, ids[i]).t(), right, scale)
    return out


def terms(
    probing: Probed, t: Tunable, dtype: torch.dtype
) -> Iterator[tuple[int, float, torch.Tensor, torch.Tensor]]:
    """(probe index, signed scale, left, right) for every probe that moves the tensor."""
    for pair in probing.pairs:
        scale = probing.scale_of(pair, t)
        if scale:
            left, right = probing.factors(t, pair.at.seed, dtype)
            for sign, members in ((1, pair.plus), (-1, pair.minus)):
                for i in members:
                    yield i, sign * scale, left, right


def add_(out: torch.Tensor, thin: torch.Tensor, wide: torch.Tensor, scale: float) -> Any:
    """out (n, m) += scale * thin (n, r) @ wide (r, m)."""
    rank = len(wide)
    if rank > _THIN or out.dtype != torch.float32 or out.is_cuda:
        return out.addmm_(thin, wide, alpha=scale)
    for k in range(rank):
        out.addcmul_(thin[:, k : k + 1], wide[k], value=scale)
    return out
