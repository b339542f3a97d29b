"""One model on several processes: each holds a share of every large matrix, and they add up their results.

The model's own `base_model_tp_plan` says which matrices are cut. The shares stay plain parameters of plain layers, so
probes, noise and updates work as on any others: each knows its elements of the whole matrix (`weights.Shard`).
transformers' own way, distributed tensors in wrapped layers, leaves no place for a perturbed weight.

    colwise   a layer's outputs are shared out: rows of its weight (and of its bias)
    rowwise   its inputs are: columns of its weight; a sum over the processes completes its result

The embedding, the head and the norms are whole everywhere, so the log-probabilities are, too.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from mezo.errors import MezoError
from mezo.weights.tunable import Shard, canonical, shard_of

_WHOLE = ("replicate", "replicated_with_grad_allreduce")
# As in `engines.transformers.selfcheck`: what is wrong in structure is off by tenths, rounding stays below.
_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.5, torch.float16: 0.1}

Sum = Callable[[torch.Tensor], None]  # over the processes that share the model, in place


def cut_(model: Any, part: int, count: int, add_up: Sum) -> None:
    """Leave of `model` the share of process `part` of `count`, all of which must call this.

    add_up: sums a tensor over them, in place. Raises MezoError, with the model as it was, without a plan that can be
    followed, or if the parts do not compute what the whole model did.
    """
    plan = _plan(model)
    layers = list(_layers(model, plan))
    _check(model, layers, count)
    expected = _logprobs(model)
    for name, module, style in layers:
        if style == "colwise":
            module.out_features //= count
            _replace(module, "weight", part, count, dim=0)
            if module.bias is not None:
                _replace(module, "bias", part, count, dim=0)
        elif style == "rowwise":
            module.in_features //= count
            _replace(module, "weight", part, count, dim=1)
            module.register_forward_hook(lambda _module, _inputs, out: _summed(out, add_up))
        assert name
    apart = float((_logprobs(model) - expected).abs().max())
    if not apart <= _TOLERANCE[next(model.parameters()).dtype]:
        raise MezoError(
            f"{type(model).__name__}: cut into {count} parts by its own plan it computes log-probabilities that are "
            f"off by {apart:.2g}: it cannot be tuned with tensor_parallel; leave that out"
        )


def make_whole_(model: Any, gather: Callable[[torch.Tensor], list[torch.Tensor] | None]) -> None:
    """Undo `cut_`, on the CPU, where `gather` returns the parts of a tensor, in order; elsewhere it is None.

    All processes that share the model are to call this.
    """
    whole_here = False
    for _, module in model.named_modules():
        for key, parameter in list(module._parameters.items()):
            shard = None if parameter is None else shard_of(parameter)
            if parameter is None or shard is None:
                continue
            parts = gather(parameter.detach().cpu())
            if parts is None:
                continue
            dim = 0 if parameter.shape[1:] == torch.Size(shard.whole[1:]) else 1
            joined = torch.cat(parts, dim)
            module._parameters[key] = nn.Parameter(joined, requires_grad=False)
            module._forward_hooks.clear()
            if key == "weight":
                module.out_features, module.in_features = joined.shape
            whole_here = True
    if whole_here:
        model.to("cpu")


def _plan(model: Any) -> dict[str, str]:
    plan = getattr(model.config.get_text_config(), "base_model_tp_plan", None)
    if not plan:
        raise MezoError(
            f"{type(model).__name__} has no plan in transformers by which it could be cut into parts: "
            "leave tensor_parallel out"
        )
    return plan


def _layers(model: Any, plan: dict[str, str]) -> Iterator[tuple[str, Any, str]]:
    """(name, module, style) of the layers that the plan names. Raises MezoError for what cannot be followed."""
    for name, module in model.base_model.named_modules():
        style = plan.get(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name))
        if style is None or style in _WHOLE:
            continue
        if style not in ("colwise", "rowwise") or type(module).forward is not nn.Linear.forward:
            raise MezoError(
                f"{type(model).__name__}: its plan cuts {name} ({type(module).__name__}) by {style!r}; plain linear "
                "layers by 'colwise' and 'rowwise' can be followed: leave tensor_parallel out"
            )
        if style == "rowwise" and module.bias is not None:
            raise MezoError(
                f"{type(model).__name__}: {name} is cut by columns and has a bias, which would be added {'once a part'}:"
                " leave tensor_parallel out"
            )
        yield name, module, style


def _check(model: Any, layers: list[tuple[str, Any, str]], count: int) -> None:
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    if heads % count or key_heads % count:
        raise MezoError(
            f"tensor_parallel={count}: {heads} attention heads with {key_heads} heads of keys and values cannot be "
            f"shared out evenly; choose a divisor of {math.gcd(heads, key_heads)}"
        )
    for name, module, style in layers:
        size = module.weight.shape[0 if style == "colwise" else 1]
        if size % count:
            raise MezoError(
                f"tensor_parallel={count} does not divide the {size} {'outputs' if style == 'colwise' else 'inputs'} "
                f"of {canonical(name)}: choose a divisor"
            )


def _replace(module: Any, key: str, part: int, count: int, *, dim: int) -> None:
    """The whole parameter by this process's share of it."""
    whole = module._parameters[key].detach()
    share = whole.chunk(count, dim)[part].clone(memory_format=torch.contiguous_format)
    columns = whole.shape[1] if whole.dim() == 2 else None
    start = part * share.shape[dim]
    mine = nn.Parameter(share, requires_grad=False)
    mine.mezo_shard = Shard(  # pyright: ignore[reportAttributeAccessIssue]
        start * (columns or 1) if dim == 0 else start, columns, tuple(whole.shape)
    )
    module._parameters[key] = mine


def _summed(out: torch.Tensor, add_up: Sum) -> torch.Tensor:
    out = out.contiguous()
    add_up(out)
    return out


@torch.no_grad()
def _logprobs(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
    return model(input_ids=ids).logits.float().log_softmax(-1)
