"""Keys and values in front of every layer's own, seen by every token of every row (Li & Liang 2021).

transformers asks its cache, layer by layer, which keys and values the queries of this pass see; here
it gets the prefix first. To whoever calls the model nothing of this shows: they give masks,
positions and caches of their own tokens, and get such caches back. As in peft, the prefix takes up
the first positions: a row's own tokens are counted from `num_tokens` on.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache

from mezo.errors import MezoError


class LayerPrefix(nn.Module):
    """The prefix of one layer: keys and values, (num_tokens, heads * dim) float32 each.

    A module whose forward is called once a pass, so that an engine may answer with those of each probe.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, num_heads: int):
        super().__init__()
        self.keys = nn.Parameter(keys, requires_grad=False)
        self.values = nn.Parameter(values, requires_grad=False)
        self.num_heads = num_heads

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, heads, num_tokens, dim) each."""
        return self._by_head(self.keys), self._by_head(self.values)

    def _by_head(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.view(1, len(flat), self.num_heads, -1).transpose(1, 2)


class PrefixKeys(DynamicCache):
    """The prefix, then what `inner` keeps or hands on of other tokens, if there is such a cache."""

    def __init__(self, layers: Sequence[LayerPrefix], inner: Cache | None):
        super().__init__()
        self.prefix, self.inner = layers, inner
        self.num_tokens = len(layers[0].keys)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, heads, tokens, dim) -> (rows, heads, num_tokens + past + tokens, dim)."""
        if self.inner is not None:
            key_states, value_states = self.inner.update(key_states, value_states, layer_idx, *args, **kwargs)
        keys, values = self.prefix[layer_idx]()
        return _before(keys, key_states), _before(values, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        past = 0 if self.inner is None else self.inner.get_seq_length(layer_idx)
        return self.num_tokens + past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length(layer_idx) + query_length, 0


def _before(prefix: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The prefix, that of all rows or each row's own, in front of the rows' states."""
    rows = prefix.to(states.dtype).expand(len(states), -1, -1, -1)
    return torch.cat([rows, states], dim=2)


class AttachedPrefix:
    """What a model's forward is given besides what its caller gives it.

    layers: the prefix of each layer in order. capacity: positions the model has, None: any number.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[LayerPrefix], *, base_name: str, capacity: int | None
    ):
        self.layers, self.base_name, self.capacity = list(layers), base_name, capacity
        self.num_tokens = len(self.layers[0].keys)
        self._names = list(inspect.signature(model.forward).parameters)
        self._is_on = True
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)
        model._mezo_prefix = self  # type: ignore[assignment]

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Inside the block the model is its base, without the prefix."""
        self._is_on = False
        try:
            yield
        finally:
            self._is_on = True

    def _before(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._is_on:
            return None
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        inner = self._inner(given.get("past_key_values"), given.get("use_cache", model.config.use_cache))
        given["past_key_values"] = PrefixKeys(self.layers, inner)
        self._check(given, given["past_key_values"].get_seq_length())
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + self.num_tokens
        if (mask := given.get("attention_mask")) is not None:
            # (rows, past + tokens) of ones and zeros, or (rows, 1, tokens, keys), added where not boolean
            seen = 0.0 if mask.dim() == 4 and mask.is_floating_point() else 1
            given["attention_mask"] = F.pad(mask, (self.num_tokens, 0), value=seen)
        return (), given

    def _after(self, model: Any, args: Any, output: Any) -> Any:
        made = getattr(output, "past_key_values", None)
        if isinstance(made, PrefixKeys):
            output.past_key_values = made.inner
        return output

    def _inner(self, given: Cache | None, use_cache: bool) -> Cache | None:
        """The cache that own tokens go to. One that forgets tokens outside of a window would count them
        from elsewhere than the prefix: a full one takes its place, and the mask keeps the window."""
        if given is None:
            return DynamicCache() if use_cache else None
        if not any(given.is_sliding):
            return given
        if given.get_seq_length():
            raise MezoError("a prefix cannot be put before keys of a sliding window that are already cached")
        return DynamicCache()

    def _check(self, given: dict[str, Any], past: int) -> None:
        ids = given.get("input_ids")
        if self.capacity is not None and ids is not None and past + ids.shape[1] > self.capacity:
            raise MezoError(
                f"a row of {past - self.num_tokens + ids.shape[1]} tokens and a prefix of {self.num_tokens} do not "
                f"fit into the {self.capacity} positions of this model: set max_length to "
                f"{self.capacity - self.num_tokens} or less"
            )


def prefix_of(model: Any) -> AttachedPrefix | None:
    """The prefix that was put on a model, if any."""
    return getattr(model, "_mezo_prefix", None)
