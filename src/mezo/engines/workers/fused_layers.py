"""What a layer of a serving engine says about the rows that its parameters hold.

Layers are known by the attributes that SGLang and vLLM give them alike, not by their classes:

    shard_indices                            embedding and head, cut by rows of the vocabulary
    total_num_kv_heads, head_size            q, k, v side by side
    output_sizes                             matrices side by side (gate, up)
    tp_rank and tp_size, or tp_group         this worker among those that share the layer
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mezo.errors import MezoError


@dataclass(frozen=True)
class ShardRows:
    """Rows of a parameter that belong together."""

    begin: int
    end: int
    first: int | None = None  # the row of the whole matrix that `begin` is; None: the shapes tell
    total: int | None = None  # rows of the whole matrix; None: likewise


def rank_and_size(module: Any, group: str = "tp_group") -> tuple[int, int]:
    """This worker's place among those that share the layer; (0, 1) for a layer that is not cut."""
    rank, size = getattr(module, "tp_rank", None), getattr(module, "tp_size", None)
    if group == "tp_group" and isinstance(rank, int) and isinstance(size, int):
        return rank, size
    owner = getattr(module, group, None)
    return (0, 1) if owner is None else (int(owner.rank_in_group), int(owner.world_size))


def side_by_side(module: Any) -> list[ShardRows]:
    """The matrices in a parameter of this layer, in order; one for a layer that fuses none."""
    rank, size = rank_and_size(module)
    if hasattr(module, "total_num_kv_heads") and hasattr(module, "head_size"):
        counts = _heads(module, rank)
    elif len(getattr(module, "output_sizes", None) or ()) > 1:
        counts = [(total // size, rank, total) for total in module.output_sizes]
    else:
        return []
    ends = list(accumulate(count for count, _, _ in counts))
    return [
        ShardRows(end - count, end, place * count, total)
        for end, (count, place, total) in zip(ends, counts, strict=True)
    ]


def _heads(module: Any, rank: int) -> list[tuple[int, int, int]]:
    """(rows here, which share of that size it is, rows in all) of q, k and v.

    Where key and value heads are fewer than workers, neighbouring workers hold the same one.
    """
    kv_rank = rank_and_size(module, "kv_tp_group")[0] if hasattr(module, "kv_tp_group") else rank
    place = kv_rank // getattr(module, "num_kv_head_replicas", 1)
    head, value_head = module.head_size, getattr(module, "v_head_size", None) or module.head_size
    return [
        (module.num_heads * head, rank, module.total_num_heads * head),
        (module.num_kv_heads * head, place, module.total_num_kv_heads * head),
        (module.num_kv_heads * value_head, place, module.total_num_kv_heads * value_head),
    ]


def alone(module: Any, rows: int) -> ShardRows:
    """The rows of a layer that fuses nothing, without the padding of a vocabulary."""
    shard = getattr(module, "shard_indices", None)
    if shard is None:
        return ShardRows(0, rows)
    if shard.added_vocab_end_index > shard.added_vocab_start_index:
        raise MezoError(
            "the engine has added words to the vocabulary; start it without them to tune all weights"
        )
    count = shard.org_vocab_end_index - shard.org_vocab_start_index
    return ShardRows(0, count, shard.org_vocab_start_index)
