"""Directions that each belong to a part of the batch: one pass over all rows, each token along its own direction.

With z_k = left_k^T right_k (`mezo.weights.rank_one`, `mezo.weights.low_rank_noise`), a matrix takes a token x of part k
to x W^T + s (x right_k^T) left_k. So all tokens share the product with W, and each adds a thin term. Biases and gains,
whose elements have noise of their own, are looked up by a token's part.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mezo import noise
from mezo.engines.perturb import matmul
from mezo.engines.perturb.deal import CannotStack, Deal
from mezo.engines.perturb.probed import Probed
from mezo.engines.perturb.raw_reads import knowing
from mezo.util.profiling import span
from mezo.weights.tunable import Tunable

_CACHED = 1 << 18  # elements that are multiplied and summed at a time on a CPU
_DRAWN = 1 << 22  # numbers of the left factors of a table that are held at a time


def add_terms_(
    probing: Probed,
    t: Tunable,
    out: torch.Tensor,
    inputs: torch.Tensor,
    *,
    transposed: bool = False,
    rows: slice = slice(None),
) -> None:
    """out (P, n, out) += s (x right^T) left of every token's direction; inputs (P, n, in), or (1, n, in) for all.

    transposed: the matrix is (in, out), as in GPT-2. rows: of the matrix.
    """
    deal = probing.deal_of(out.shape[1])
    scales = deal.scales(probing.place(t))
    if scales is None:
        return
    left, right = _factors(t, deal, out.dtype, rows)
    narrow, wide = (left, right) if transposed else (right, left)
    scale = scales[:, deal.part]
    for k in range(left.shape[1]):
        own = (_inner(inputs, narrow[:, k], deal.part) * scale).to(out.dtype)
        out.addcmul_(own.unsqueeze(2), wide[:, k].index_select(0, deal.part))


def embedding(probing: Probed, t: Tunable, ids: torch.Tensor) -> torch.Tensor:
    """(P, n) token ids -> (P, n, columns): the rows looked up, each with its part of its direction's term."""
    with knowing():
        out = t.tensor.detach().index_select(0, ids.reshape(-1)).view(*ids.shape, -1)
    deal = probing.deal_of(ids.shape[1])
    scales = deal.scales(probing.place(t))
    if scales is None:
        return out
    low, seeds, scale = _low_rank(t), deal.seeds, scales[:, deal.part]
    step = max(1, _DRAWN // (low.rows * low.rank))
    for start in range(0, len(seeds), step):
        with span("noise"):
            left = low.lefts(seeds[start : start + step], ids.device)
            right = low.rights(seeds[start : start + step], ids.device).to(out.dtype)
        here = (deal.part >= start) & (deal.part < start + step)
        mine = (deal.part - start).clamp(0, len(left) - 1)
        for k in range(left.shape[1]):
            own = torch.where(here, left[mine, k, ids] * scale, 0.0)
            out.addcmul_(own.to(out.dtype).unsqueeze(2), right[:, k].index_select(0, mine))
    return out


def vector(probing: Probed, t: Tunable, tokens: int, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """(P, n, m): elements start:stop of a bias or a gain as each token sees it, rounded to its type as any probe's is."""
    if t.low_rank is not None or t.tensor.dim() != 1:
        raise CannotStack(f"{t.name} is no vector")
    deal, theta = probing.deal_of(tokens), t.tensor.detach()[start:stop]
    scales = deal.scales(probing.place(t))
    if scales is None:
        return theta.expand(len(deal.slots), tokens, -1)
    with span("noise"), knowing():
        kind, count = probing.weights.entrywise, theta.numel()
        z = noise.vectors(t.tensor_id, deal.seeds, start, count, theta.device, kind=kind)
        table = (theta.float() + scales.unsqueeze(2) * z).to(theta.dtype)
    return table[:, deal.part]


def linear(
    probing: Probed,
    module: Any,
    weight: Tunable | None,
    bias: Tunable | None,
    x: torch.Tensor,
    *,
    transposed: bool,
) -> torch.Tensor:
    """(P, n, in) -> (P, n, out)."""
    probing.deal_of(x.shape[1])
    one = x[:1] if x.stride(0) == 0 else x  # shared by all slots
    matrix = module.weight.t() if transposed else module.weight
    out = matmul.linear(one, matrix.to(x.dtype), module.bias if bias is None else None)
    if len(out) != len(x):
        out = out.repeat(len(x), 1, 1)
    if weight is not None:
        add_terms_(probing, weight, out, one, transposed=transposed)
    if bias is not None:
        out += vector(probing, bias, x.shape[1])
    return out


def gain(probing: Probed, t: Tunable, x: torch.Tensor) -> torch.Tensor:
    """The gain of a norm for every token of x, in a shape that spreads over it.

    x: (rows, tokens, features), or rows and tokens as one dimension, or with one of heads before or after the tokens.
    """
    slots, deal = len(probing.probes), probing.deal
    if x.dim() < 4:
        return vector(probing, t, x.shape[:-1].numel() // slots).reshape(x.shape)
    places = [n for n in (1, 2) if deal is not None and x.shape[n] == deal.width]
    if x.dim() > 4 or len(places) != 1:
        raise CannotStack("it is unclear which dimension counts tokens")
    gains = vector(probing, t, x.shape[0] * x.shape[places[0]] // slots)
    return gains.view(x.shape[0], *(x.shape[n] if n in places else 1 for n in (1, 2)), x.shape[-1])


def layer_norm(probing: Probed, module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """torch's own, with gains and biases of each token's direction."""
    if len(module.normalized_shape) != 1:
        raise CannotStack("a norm is over more than the features of a token")
    out = F.layer_norm(x.float(), module.normalized_shape, eps=module.eps)
    for key, change in (("weight", out.mul_), ("bias", out.add_)):
        tunable, plain = probing.tunable(module, key), module._parameters.get(key)
        if tunable is not None:
            change(gain(probing, tunable, x))
        elif plain is not None:
            change(plain)
    return out.to(x.dtype)


def _inner(x: torch.Tensor, vectors: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """(P, n): the inner product of each of (P, n, features) with the vector, (parts, features), of its part.

    Not by a matrix product, of whose `parts` columns a token would take one: slower from 16 parts on.
    """
    found = x.new_empty(x.shape[:2])
    step = len(part) if x.is_cuda else max(1, _CACHED // x.shape[2])
    for start in range(0, len(part), step):
        some = slice(start, start + step)
        torch.sum(x[:, some] * vectors.index_select(0, part[some]), -1, out=found[:, some])
    return found


def _low_rank(t: Tunable) -> Any:
    if t.low_rank is None:
        raise CannotStack(f"the noise of {t.name} is not made of factors")
    return t.low_rank


def _factors(t: Tunable, deal: Deal, dtype: torch.dtype, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """(parts, r, rows) and (parts, r, columns) of every part's direction."""
    low, device = _low_rank(t), deal.part.device
    with span("noise"):
        left = low.lefts(deal.seeds, device, rows.start or 0, rows.stop)
        return left.to(dtype), low.rights(deal.seeds, device).to(dtype)
