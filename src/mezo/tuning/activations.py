"""The keys and values that a model's layers make of a few tokens, to the same bits everywhere."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.models.widened import widened


@dataclass(frozen=True, slots=True)
class Activations:
    """What one layer puts into the cache."""

    attention: nn.Module  # the module that does so
    name: str  # its name in the model
    keys: torch.Tensor  # (heads, tokens, dim), as the queries see them: positions applied
    values: torch.Tensor  # (heads, tokens, dim)


@torch.no_grad()
def activations(model: Any, tokens: Sequence[int], *, exact: bool = True) -> list[Activations]:
    """Keys and values of a row of tokens, layer by layer.

    exact: compute in float64, whatever the model's type, and round to bfloat16 (held in float32). The
    sums of two devices, or of two numbers of threads, then differ by about 1e-15 of a value, and only a
    value as near as that to the middle between two bfloat16 numbers, which lie 4e-3 of it apart, would
    be rounded to both sides: one in 10^12. So a run's start can be made again anywhere.

    Raises MezoError for a model whose attention does not read a cache, layer by layer, with keys and
    values of one shape.
    """
    names = {module: name for name, module in model.named_modules()}
    ids = torch.tensor([list(tokens)], device=device_of(model))
    with _calls(model) as running:
        seen = _Recorder(running)
        try:
            with _in_float64(model) if exact else nullcontext():
                model(input_ids=ids, past_key_values=seen)
        except Exception as error:  # of whatever kind a model ends in that wants another cache, or float32
            raise MezoError(
                f"{type(model).__name__} takes no prefix: its forward fails with a cache of keys and values alone "
                f"({type(error).__name__}: {' '.join(str(error).split()):.80}); use tuning=lora or tuning=full"
            ) from error
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    shapes = {t.shape for _, k, v in seen.found.values() for t in (k, v)}
    if not seen.found or sorted(seen.found) != list(range(layers or len(seen.found))) or len(shapes) > 1:
        raise MezoError(
            f"{type(model).__name__} takes no prefix: its attention layers do not all read keys and values of one "
            "shape from a cache; use tuning=lora or tuning=full"
        )
    rounded = torch.bfloat16 if exact else model.dtype
    return [
        Activations(module, names[module], *(t[0].to(rounded).float() for t in (keys, values)))
        for module, keys, values in (seen.found[n] for n in sorted(seen.found))
    ]


class _Recorder(DynamicCache):
    """A cache that keeps what it is given and who gave it."""

    def __init__(self, running: list[nn.Module]):
        super().__init__()
        self._running = running
        self.found: dict[int, tuple[nn.Module, torch.Tensor, torch.Tensor]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.found[layer_idx] = self._running[-1], key_states, value_states
        return key_states, value_states


@contextmanager
def _calls(model: nn.Module) -> Iterator[list[nn.Module]]:
    """While active: the modules whose forward is running, the innermost last."""
    running: list[nn.Module] = []
    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(lambda m, _: running.append(m)))
        hooks.append(module.register_forward_hook(lambda *_: _leave(running), always_call=True))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def _leave(running: list[nn.Module]) -> None:
    running.pop()


@contextmanager
def _in_float64(model: Any) -> Iterator[None]:
    """Computes in float64. Experts take turns, each with a plain product: the grouped one has no float64."""
    experts = getattr(model.config, "_experts_implementation", None)
    if experts is not None:
        model.set_experts_implementation("eager")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with widened(torch.float64):
            yield
    finally:
        torch.set_default_dtype(default)
        if experts is not None:
            model.set_experts_implementation(experts)
