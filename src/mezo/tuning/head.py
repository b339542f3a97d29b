"""The language-model head alone."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from mezo.config import MeZOConfig
from mezo.models.quantised import check_plain
from mezo.tuning.select import chosen
from mezo.weights.tunable import canonical


@dataclass(frozen=True, slots=True)
class _Place:
    module: nn.Module
    key: str

    @property
    def tensor(self) -> nn.Parameter:
        return self.module._parameters[self.key]  # type: ignore[return-value]


def head(model: Any, config: MeZOConfig) -> Any:
    """The output embedding and its bias, or, with `train`, the matching parameters above the transformer.

    A tied head gets a copy first, so that the input embedding stays unchanged: one vocabulary matrix more in
    memory, and a saved model with `tie_word_embeddings: false`.

    Raises: MezoError if a pattern matches no name.
    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_pretrained("my-model")
        >>> [name for name, p in head(model, MeZOConfig()).named_parameters() if p.requires_grad]
        ['lm_head.weight']
    """
    output = model.get_output_embeddings()
    above = _above(model, output)
    if config.train is None:
        places = [place for place in above.values() if place.module is output]
    else:
        places = [above[name] for name in chosen(above, config.train, of="head parameter")]
    check_plain(((name, p.tensor) for name, p in above.items() if p in places), "head")
    if any(place.module is output for place in places):
        former = untie(model, output)
        # BERT's head has a second name for its decoder's bias, which nothing reads any more
        places = [place for place in places if id(place.tensor) not in former]
    model.requires_grad_(False)
    for place in places:
        place.tensor.requires_grad_(True)
    return model


def _above(model: Any, output: nn.Module) -> dict[str, _Place]:
    """The parameters that are not in the transformer under the head, by all their names."""
    transformer = model.base_model
    inside = set(model.modules() if transformer is model else transformer.modules()) - {output}
    return {
        canonical(f"{name}.{key}" if name else key): _Place(module, key)
        for name, module in model.named_modules()
        if module not in inside
        for key, tensor in module._parameters.items()
        if tensor is not None
    }


def untie(model: Any, output: nn.Module) -> set[int]:
    """Give the output embedding tensors of its own; the ids of those that it shared."""
    others = {id(p) for m in model.modules() if m is not output for p in m._parameters.values()}
    shared = {key: p for key, p in output._parameters.items() if p is not None and id(p) in others}
    for key, tensor in shared.items():
        output._parameters[key] = nn.Parameter(tensor.detach().clone(), requires_grad=False)
    if shared:
        for settings in (model.config, model.config.get_text_config()):
            settings.tie_word_embeddings = False
        # what transformers leaves out of a saved file, as tensors that another one gives
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    return {id(p) for p in shared.values()}
