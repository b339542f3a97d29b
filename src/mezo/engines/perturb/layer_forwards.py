"""How each kind of layer computes with perturbed weights, for all probes at once.

Every handler takes (probing, module, forward, keys, *args, **kwargs): `forward` is the module's own, `keys` the names
of its tuned parameters. Tensors whose first dimension counts rows carry the P probes one after another; a first
dimension of 1 is shared by all. Anything else cannot be stacked: CannotStack.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from mezo.engines.perturb import dealt, low_rank, matmul
from mezo.engines.perturb.deal import CannotStack
from mezo.engines.perturb.matmul import linear_into
from mezo.engines.perturb.probed import Probed
from mezo.engines.perturb.raw_reads import knowing, unwatched
from mezo.models.quantised import is_plain

Forward = Callable[..., Any]


def handler_for(module: nn.Module, keys: Sequence[str], own: Forward | None = None) -> Callable[..., Any]:
    """The handler for a module's type; `any_module` for unknown ones.

    keys: the names of its perturbed tensors. own: a forward that someone has set on the module.
    """
    kind, plain = type(module), own is None and all(key in module._parameters for key in keys)
    if not plain:
        return any_module
    if _is_plain_linear(module) and set(keys) <= {"weight", "bias"}:
        return linear
    if kind.forward is _EMBEDDING and module.max_norm is None and keys == ["weight"]:  # type: ignore[union-attr]
        return embedding
    if isinstance(module, nn.Embedding) and module.max_norm is None and keys == ["weight"]:
        return embedding_subclass
    if kind.__name__ == "Conv1D" and hasattr(module, "nf") and set(keys) <= {"weight", "bias"}:
        return conv1d
    if "RMSNorm" in kind.__name__ and _spreads(module):
        return gain
    return any_module


def _genuine(forward: Forward) -> Forward | None:
    """torch's own forward; None where somebody has patched the class before this module was imported."""
    return forward if forward.__module__.startswith("torch.nn.modules.") else None


def layer_norm_of(module: nn.Module) -> bool:
    """Whether a module is torch's own norm over the features of a token."""
    return type(module).forward is _LAYER_NORM and len(module.normalized_shape) == 1  # type: ignore[arg-type]


_LINEAR, _EMBEDDING = _genuine(nn.Linear.forward), _genuine(nn.Embedding.forward)
_LAYER_NORM = _genuine(nn.LayerNorm.forward)


def _is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is x @ weight^T + bias of the two tensors it owns: not one whose weight is computed."""
    weight = module._parameters.get("weight")
    plain = weight is not None and is_plain(
        weight
    )  # and no values in few bits, which torch multiplies by itself
    return type(module).forward is _LINEAR and plain


@unwatched
def linear(
    probing: Probed, module: nn.Linear, forward: Forward, keys: list[str], x: torch.Tensor
) -> torch.Tensor:
    """x @ W_p^T + b_p, W written a row block at a time: a row of W is a column of the result."""
    if torch.is_autocast_enabled(x.device.type):  # which turns to functions of torch, and not to ours
        return any_module(probing, module, forward, keys, x)
    return _matmul(probing, module, x, out_features=module.out_features, transposed=False)


@unwatched
def conv1d(probing: Probed, module: Any, forward: Forward, keys: list[str], x: torch.Tensor) -> torch.Tensor:
    """GPT-2's layer: x @ W_p + b_p; a row block of W is a share of the sum."""
    if torch.is_autocast_enabled(x.device.type):
        return any_module(probing, module, forward, keys, x)
    return _matmul(probing, module, x, out_features=module.nf, transposed=True)


def is_faster_here(module: nn.Module) -> bool:
    """Whether `unperturbed_linear` computes what this module does, and faster."""
    return _is_plain_linear(module) and matmul.way(module.weight) != "torch"  # type: ignore[arg-type]


@unwatched
def unperturbed_linear(module: Any, x: torch.Tensor) -> torch.Tensor:
    """A layer that is not tuned, or not probed now: all probes, stacked along the batch, share its product."""
    if torch.is_autocast_enabled(x.device.type):
        return F.linear(x, module.weight, module.bias)
    return matmul.linear(x, module.weight, module.bias)


def _matmul(
    probing: Probed, module: Any, x: torch.Tensor, *, out_features: int, transposed: bool
) -> torch.Tensor:
    inputs, restore = _by_probe(probing, x)
    weight, bias = probing.tunable(module, "weight"), probing.tunable(module, "bias")
    if probing.deal is not None:
        return restore(dealt.linear(probing, module, weight, bias, inputs, transposed=transposed))
    out = x.new_empty(len(probing.probes), inputs.shape[1], out_features)
    if weight is not None and weight.low_rank is not None:
        own = None if bias is None else probing.perturbed_copies(bias)
        raw = module.bias if own is None else None
        return restore(low_rank.linear(probing, weight, inputs, raw, own, transposed=transposed))
    biases = [module.bias] * len(out) if bias is None else probing.perturbed_copies(bias)
    if weight is None:
        raw = module.weight.t() if transposed else module.weight
        for i in range(len(out)):
            linear_into(out[i], inputs[i], raw, biases[i])
    elif transposed:
        for n, (start, stop) in enumerate(probing.blocks(weight.tensor)):
            for i, block in probing.perturbed(weight, start, stop):
                share = inputs[i, :, start:stop]
                if n == 0:
                    linear_into(out[i], share, block.t(), biases[i])
                else:
                    out[i] += matmul.linear(share, block.t())
    else:
        for start, stop in probing.blocks(weight.tensor):
            for i, block in probing.perturbed(weight, start, stop):
                share = None if biases[i] is None else biases[i][start:stop]
                linear_into(out[i, :, start:stop], inputs[i], block, share)
    return restore(out)


@unwatched
def embedding(
    probing: Probed, module: nn.Embedding, forward: Forward, keys: list[str], ids: torch.Tensor
) -> torch.Tensor:
    """Only the rows that are looked up are perturbed."""
    table = probing.tunable(module, "weight")
    assert table is not None
    inputs, restore = _by_probe(probing, ids.unsqueeze(-1))
    if probing.deal is not None:
        return restore(dealt.embedding(probing, table, inputs.squeeze(-1)))
    if table.low_rank is not None:
        return restore(low_rank.embedding(probing, table, inputs.squeeze(-1)))
    if inputs.is_cuda:  # finding the distinct ones would make the host wait for the device
        used, place = inputs.flatten(), torch.arange(inputs.numel(), device=inputs.device)
    else:
        used, place = inputs.unique(return_inverse=True)
    place = place.view(inputs.shape[:2])
    out = table.tensor.new_empty(len(probing.probes), inputs.shape[1], module.embedding_dim)
    for i, rows in probing.perturbed_rows(table, used):
        torch.index_select(rows, 0, place[i], out=out[i])
    return restore(out)


def embedding_subclass(
    probing: Probed, module: nn.Embedding, forward: Forward, keys: list[str], *args: Any, **kwargs: Any
) -> Any:
    """A look-up with arithmetic around it (scaled, offset): only the look-up itself is ours."""

    class LookUp(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is F.embedding and len(args) > 1 and args[1] is module.weight:
                return embedding(probing, module, forward, keys, args[0])
            return func(*args, **(kwargs or {}))

    with LookUp():
        return forward(*args, **kwargs)


def gain(
    probing: Probed, module: nn.Module, forward: Forward, keys: list[str], *args: Any, **kwargs: Any
) -> Any:
    """A root-mean-square norm: one gain a feature, so the probes need not be taken apart."""
    weight = probing.tunable(module, "weight")
    count = len(probing.probes)
    x = args[0] if len(args) == 1 and not kwargs else None  # a gated norm is given more
    if x is None or weight is None or keys != ["weight"] or x.dim() < 2 or x.shape[0] % _each(probing):
        return any_module(probing, module, forward, keys, *args, **kwargs)
    original = module._parameters["weight"]
    with knowing():
        if probing.deal is not None:
            gains = dealt.gain(probing, weight, x)
        else:
            copies = torch.stack(probing.perturbed_copies(weight)).repeat_interleave(x.shape[0] // count, 0)
            gains = copies.view(x.shape[0], *[1] * (x.dim() - 2), -1)
        module._parameters["weight"] = gains  # type: ignore[assignment]
    try:
        return forward(x)
    finally:
        module._parameters["weight"] = original


_spreading: dict[type, bool] = {}


@unwatched
@torch.no_grad()
def _spreads(module: nn.Module) -> bool:
    """Whether a norm takes a gain for each row of its input; found out once a type, by comparing."""
    kind, original = type(module), module._parameters.get("weight")
    if kind not in _spreading:
        _spreading[kind] = False
        if original is not None and original.dim() == 1:
            x = torch.linspace(-1, 2, 6 * len(original)).to(original).view(2, 3, -1)
            gains = torch.linspace(0.5, 3, 2 * len(original)).to(x).view(2, -1)
            try:
                expected = []
                for row, one in zip(x, gains, strict=True):
                    module._parameters["weight"] = one  # type: ignore[assignment]
                    expected.append(kind.forward(module, row))
                module._parameters["weight"] = gains.unsqueeze(1)  # type: ignore[assignment]
                _spreading[kind] = torch.equal(kind.forward(module, x), torch.stack(expected))
            except (RuntimeError, TypeError, ValueError):
                pass  # it wants its gain as it is
            finally:
                module._parameters["weight"] = original
    return _spreading[kind]


def any_module(
    probing: Probed, module: nn.Module, forward: Forward, keys: list[str], *args: Any, **kwargs: Any
) -> Any:
    """Run the module's own forward once a probe, on that probe's rows, with its tensors swapped."""
    if probing.deal is not None and type(module).forward is _LAYER_NORM and len(args) == 1 and not kwargs:
        with knowing():
            return dealt.layer_norm(probing, module, args[0])  # type: ignore[arg-type]
    copies = {
        key: probing.perturbed_copies(t) for key in keys if (t := probing.tunable(module, key)) is not None
    }
    originals = {key: module._parameters[key] for key in copies}
    results = []
    try:
        for i in range(len(probing.probes)):
            for key, values in copies.items():
                module._parameters[key] = values[i]  # type: ignore[assignment]
            a, k = tree_map(lambda leaf, i=i: _rows_of(probing, leaf, i), (args, kwargs))
            with probing.only(i):
                results.append(forward(*a, **k))
    finally:
        module._parameters.update(originals)
    return _join(probing, results)


def _each(probing: Probed) -> int:
    """What the first dimension of a tensor that carries every probe's rows is a multiple of."""
    return len(probing.probes) if probing.rows is None else probing.rows


def _by_probe(
    probing: Probed, x: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """x as (P, rows of one probe, features), and the way back for a result of that form."""
    count = len(probing.probes)
    lead = x.shape[:-1]
    if count == 1:
        return x.reshape(1, -1, x.shape[-1]), lambda out: out.view(*lead, out.shape[-1])
    if lead[0] == 1:  # shared by all rows of all probes
        each = (probing.rows or count) // count
        shared = x.reshape(1, -1, x.shape[-1]).expand(count, -1, -1)
        return shared, lambda out: out.view(count, *lead[1:], out.shape[-1]).repeat_interleave(each, 0)
    if lead[0] % _each(probing):
        raise CannotStack(f"a layer is given {tuple(x.shape)} where rows come in {_each(probing)}s")
    return x.reshape(count, -1, x.shape[-1]), lambda out: out.view(*lead, out.shape[-1])


def _rows_of(probing: Probed, leaf: Any, i: int) -> Any:
    """The part of one argument that belongs to probe i."""
    count = len(probing.probes)
    if count == 1 or not isinstance(leaf, torch.Tensor) or leaf.dim() == 0 or leaf.shape[0] == 1:
        return leaf
    if leaf.shape[0] % _each(probing):
        raise CannotStack(f"a module is given {tuple(leaf.shape)} where rows come in {_each(probing)}s")
    return leaf.chunk(count)[i]


def _join(probing: Probed, results: list[Any]) -> Any:
    """Stack the results of the probes along the rows; a shared row is repeated for each of them."""
    if len(results) == 1:
        return results[0]
    each = _each(probing) // len(results)
    flat = [tree_flatten(r) for r in results]
    joined = []
    for leaves in zip(*(leaves for leaves, _ in flat), strict=True):
        if isinstance(leaves[0], torch.Tensor) and leaves[0].dim():
            widen = leaves[0].shape[0] == 1 and each > 1
            if not widen and leaves[0].shape[0] % each:
                raise CannotStack(f"a module returns {tuple(leaves[0].shape)} for {each} rows")
            joined.append(torch.cat([t.expand(each, *t.shape[1:]) if widen else t for t in leaves]))
        elif isinstance(leaves[0], torch.Tensor) and not all(t is leaves[0] for t in leaves):
            raise CannotStack("a module returns a number for all rows")
        else:
            joined.append(leaves[0])
    return tree_unflatten(joined, flat[0][1])
