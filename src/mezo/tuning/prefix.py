"""A prefix of keys and values in front of every layer's own (Li & Liang 2021)."""

from collections.abc import Sequence
from typing import Any

import torch

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models.limits import positions_of
from mezo.models.names import public_name
from mezo.noise import INITIALISATION
from mezo.noise.where import Where
from mezo.tuning.activations import Activations, activations
from mezo.tuning.prefix_keys import AttachedPrefix, LayerPrefix, prefix_of
from mezo.tuning.select import chosen
from mezo.weights.tunable import canonical

_ANY_TOKENS = (5, 6, 7)  # to see the shape of a layer's keys
_STEP = 2**64 - 1  # no run has so many: the tokens are drawn apart from the directions of any step


def prefix(model: Any, config: MeZOConfig) -> Any:
    """`prefix_tokens` keys and values in front of those of every layer; nothing else is tuned.

    They start as the activations of tokens drawn by the run's seed, rounded to bfloat16 so that the start is
    the same on every device, or as standard normal noise (`prefix_init: random`). With `train`, only layers
    whose names match are tuned; peft's format keeps a prefix for every layer.

    Raises: MezoError if the model takes no prefix, or a pattern matches no name.
    Reference: Li & Liang 2021; MeZO, appendix E.5 (the start from activations).
    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_pretrained("my-model")
        >>> [tuple(p.shape) for p in prefix(model, MeZOConfig()).parameters() if p.requires_grad]
        [(5, 8), (5, 8), (5, 8), (5, 8)]
    """
    count = config.prefix_tokens
    if config.prefix_init == "activations":
        found = activations(model, _drawn(config.seed, count, model.config.get_text_config().vocab_size))
        starts = [(_flat(layer.keys), _flat(layer.values)) for layer in found]
    else:
        found = activations(model, _ANY_TOKENS, exact=False)
        starts = [
            (_noise(layer, "keys", count, config), _noise(layer, "values", count, config)) for layer in found
        ]
    attach(model, found, starts, base_name=public_name(config.model))
    _check_reads_all(model)
    tensors = {canonical(name): p for name, p in model.named_parameters() if ".prefix." in name}
    model.requires_grad_(False)
    for name in chosen(tensors, config.train, of="prefix"):
        tensors[name].requires_grad_(True)
    return model


def with_prefix(model: Any, embeddings: torch.Tensor, *, base_name: str) -> Any:
    """The model with a prefix in peft's form on it: (tokens, layers * 2 * heads * dim).

    Raises MezoError if it is not one for this model.
    """
    found = activations(model, _ANY_TOKENS, exact=False)
    heads, _, dim = found[0].keys.shape
    if embeddings.dim() != 2 or embeddings.shape[1] != len(found) * 2 * heads * dim:
        raise MezoError(
            f"a prefix of shape {tuple(embeddings.shape)} does not fit the model: expected (tokens, "
            f"{len(found)} layers * 2 * {heads} heads * {dim})"
        )
    # clones: parts of one tensor would keep all of it, and are not contiguous
    parts = [part.clone() for part in embeddings.float().to(model.device).chunk(2 * len(found), dim=1)]
    attach(model, found, list(zip(parts[::2], parts[1::2], strict=True)), base_name=base_name)
    _check_reads_all(model)
    return model.requires_grad_(False)


def attach(
    model: Any,
    found: Sequence[Activations],
    starts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    *,
    base_name: str,
) -> AttachedPrefix:
    """Give each layer's attention a child `prefix` of these keys and values, (tokens, heads * dim)."""
    if prefix_of(model) is not None:
        raise MezoError("this model has a prefix already: load the base model anew")
    layers = []
    for layer, (keys, values) in zip(found, starts, strict=True):
        layer.attention.add_module("prefix", LayerPrefix(keys, values, len(layer.keys)))
        layers.append(layer.attention.prefix)
    return AttachedPrefix(model, layers, base_name=base_name, capacity=positions_of(model))


@torch.no_grad()
def _check_reads_all(model: Any) -> None:
    """Raises MezoError for a model that takes a row after a cache for the rest of a row it has begun (CPM-Ant)."""
    try:
        answered = model(input_ids=torch.tensor([_ANY_TOKENS], device=model.device)).logits.shape[1]
    except Exception as error:  # of whatever kind the model's forward ends in
        answered = f"{type(error).__name__}: {' '.join(str(error).split()):.80}"
    if answered != len(_ANY_TOKENS):
        raise MezoError(
            f"{type(model).__name__} takes no prefix: of {len(_ANY_TOKENS)} tokens behind one it gives {answered}; "
            "use tuning=lora or tuning=full"
        )


def _drawn(seed: int, count: int, vocabulary: int) -> list[int]:
    """Token ids, uniform to within vocabulary / 2^64."""
    return [noise.derive_seed(seed, _STEP, n) % vocabulary for n in range(count)]


def _flat(states: torch.Tensor) -> torch.Tensor:
    """(heads, tokens, dim) -> (tokens, heads * dim)."""
    return states.transpose(0, 1).flatten(1).contiguous()


def _noise(layer: Activations, what: str, count: int, config: MeZOConfig) -> torch.Tensor:
    heads, _, dim = layer.keys.shape
    drawn = torch.empty(1, count * heads * dim, device=layer.keys.device)
    where = Where(noise.tensor_id(f"{canonical(layer.name)}.prefix.{what}"))
    noise.fill_(drawn, where, config.seed, purpose=INITIALISATION)
    return drawn.view(count, heads * dim)
