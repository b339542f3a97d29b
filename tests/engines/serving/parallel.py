"""The module trees that SGLang and vLLM make of a model, in plain torch: a worker's share of its tensors.

Layers carry the attributes of the engines' own, in either engine's manner; they compute nothing. The
engines themselves are tested in `test_worker_engines.py`.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from mezo.weights.tunable import canonical

PAD = 64  # a vocabulary is padded to a multiple of this


@dataclass(frozen=True)
class Group:
    rank_in_group: int
    world_size: int


class Layer(nn.Module):
    """rank, size: as vLLM has them ("numbers"), or in a group, as SGLang has ("group")."""

    def __init__(self, manner: str, rank: int, size: int, **attributes: Any):
        super().__init__()
        if manner == "numbers":
            self.tp_rank, self.tp_size = rank, size
        else:
            self.tp_group = Group(rank, size) if size > 1 else None
        for name, value in attributes.items():
            setattr(self, name, value)


def worker_model(model: Any, rank: int, size: int, manner: str = "numbers") -> nn.Module:
    """What worker `rank` of `size` holds of a Llama-like transformers model or of OPT."""
    config, root = model.config, nn.Module()
    tensors = {canonical(n): p.detach() for n, p in model.named_parameters()}
    heads = config.num_attention_heads
    shape = {
        "heads": heads,
        "kv": getattr(config, "num_key_value_heads", heads),
        "head": getattr(config, "head_dim", None) or config.hidden_size // heads,
    }
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        parent, _, last = path.rpartition(".")
        if last in ("k_proj", "v_proj", "up_proj"):
            continue
        if last in ("q_proj", "gate_proj"):
            others = ("q_proj", "k_proj", "v_proj") if last == "q_proj" else ("gate_proj", "up_proj")
            together = [tensors[f"{parent}.{other}.{own}"] for other in others]
            layer, value = (_qkv if last == "q_proj" else _gate_up)(manner, rank, size, together, shape)
            path = f"{parent}.{'qkv_proj' if last == 'q_proj' else 'gate_up_proj'}"
        else:
            layer, value = _single(manner, rank, size, last, own, tensor)
        _put(root, path, own, layer, value)
    if config.tie_word_embeddings:
        embedding = model.get_input_embeddings().weight
        (name,) = (n for n, p in model.named_parameters() if p is embedding)
        root.lm_head = root.get_submodule(name.rpartition(".")[0])
    return root


def _qkv(
    manner: str, rank: int, size: int, together: list[torch.Tensor], shape: dict[str, int]
) -> tuple[nn.Module, torch.Tensor]:
    kv = max(1, shape["kv"] // size)
    replicas = max(1, size // shape["kv"])
    layer = Layer(
        manner,
        rank,
        size,
        total_num_heads=shape["heads"],
        total_num_kv_heads=shape["kv"],
        num_heads=shape["heads"] // size,
        num_kv_heads=kv,
        num_kv_head_replicas=replicas,
        head_size=shape["head"],
        v_head_size=shape["head"],
        output_sizes=[shape["heads"] * shape["head"], *[kv * shape["head"] * size] * 2],
    )
    counts = [shape["heads"] // size * shape["head"], *[kv * shape["head"]] * 2]
    places = [rank, rank // replicas, rank // replicas]
    shares = [t[p * n : (p + 1) * n] for t, n, p in zip(together, counts, places, strict=True)]
    return layer, torch.cat(shares)


def _gate_up(
    manner: str, rank: int, size: int, together: list[torch.Tensor], shape: dict[str, int]
) -> tuple[nn.Module, torch.Tensor]:
    layer = Layer(manner, rank, size, output_sizes=[len(t) for t in together])
    return layer, torch.cat([t.chunk(size)[rank] for t in together])


def _single(
    manner: str, rank: int, size: int, last: str, own: str, tensor: torch.Tensor
) -> tuple[nn.Module, torch.Tensor]:
    if last in ("embed_tokens", "lm_head"):
        rows = -(-len(tensor) // PAD) * PAD
        rows = rows if rows % size == 0 else -(-len(tensor) // (PAD * size)) * PAD * size
        padded = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), tensor.shape[1])])
        begin, end = (min(r * rows // size, len(tensor)) for r in (rank, rank + 1))
        indices = SimpleNamespace(
            org_vocab_start_index=begin,
            org_vocab_end_index=end,
            added_vocab_start_index=len(tensor),
            added_vocab_end_index=len(tensor),
        )
        return Layer(manner, rank, size, shard_indices=indices), padded.chunk(size)[rank]
    if last in ("o_proj", "out_proj", "down_proj", "fc2"):  # cut by columns; the bias is whole
        return Layer(manner, rank, size), tensor.chunk(size, 1)[rank] if own == "weight" else tensor
    if last == "fc1":
        return Layer(manner, rank, size), tensor.chunk(size)[rank]
    return nn.Module(), tensor  # norms, positions


def _put(root: nn.Module, path: str, own: str, layer: nn.Module, value: torch.Tensor) -> None:
    here = root
    *parents, last = path.split(".")
    for name in parents:
        if name not in here._modules:
            here.add_module(name, nn.Module())
        here = here.get_submodule(name)
    if last not in here._modules:
        here.add_module(last, layer)
    copy = value.clone(memory_format=torch.contiguous_format)
    here.get_submodule(last).register_parameter(own, nn.Parameter(copy, requires_grad=False))
