"""A model that has a peft adapter already: the adapter is tuned as it is, and no second one is added."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.tuning.label_rows import mark_rows
from mezo.tuning.peft_warnings import quiet_peft
from mezo.tuning.select import chosen
from mezo.weights.tunable import canonical

KINDS = {"LORA": "lora", "IA3": "lora", "LN_TUNING": "norms"}  # and the mode that tunes them
# Settings of LoRA under which tensors outside of the adapter move, or whose forward was not compared with theta + eps z.
_REFUSED = (
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "arrow_config",
)


class OwnAdapter(NamedTuple):
    """The active adapter of a PeftModel."""

    name: str
    kind: str  # as peft calls it
    settings: Any  # peft's config

    def in_words(self) -> str:
        rank = f", rank {self.settings.r}" if self.kind == "LORA" else ""
        return f"its own adapter {self.name!r} ({self.kind}{rank})"


def own_adapter(model: Any) -> OwnAdapter | None:
    """The adapter that a model brings along; None for a plain model.

    Raises MezoError unless exactly one is active, is not merged into the weights, and is of a kind that is tuned here.
    """
    if not isinstance(found := getattr(model, "peft_config", None), Mapping) or not found:
        return None
    if not hasattr(model, "get_base_model"):
        raise MezoError(
            f"{type(model).__name__} has adapters that transformers put into it: expected a PeftModel (peft.get_peft_model)"
        )
    active = getattr(model.base_model, "active_adapters", None)  # of prompt learning, transformers' method
    names = list(active) if isinstance(active, list) else [model.active_adapter]
    if len(names) != 1:
        raise MezoError(
            f"this model has the active adapters {', '.join(map(repr, names))}: expected one; choose it with set_adapter"
        )
    settings = found[names[0]]
    kind = str(getattr(settings.peft_type, "value", settings.peft_type))
    if kind not in KINDS:
        raise MezoError(
            f"this model has an adapter of peft_type {kind}, which is not tuned here: expected {' or '.join(KINDS)}"
        )
    for name in _REFUSED:
        if getattr(settings, name, None):
            raise MezoError(
                f"this model has an adapter with {name}, which is not tuned here: train it without"
            )
    if (bias := getattr(settings, "bias", "none")) != "none":
        raise MezoError(
            f"this model has an adapter with bias={bias!r}, under which the base's own biases move: expected 'none'"
        )
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise MezoError("this model's adapter is merged into its weights: call unmerge_adapter() first")
    return OwnAdapter(names[0], kind, settings)


def tune_own(model: Any, own: OwnAdapter, config: MeZOConfig) -> Any:
    """Mark the active adapter's parameters, and the modules that it saves whole; `train` patterns select among them.

    Raises MezoError for a tuning mode of other tensors, and for a pattern that is found in no name.
    """
    if config.tuning != (mode := KINDS[own.kind]):
        raise MezoError(
            f"tuning={config.tuning!r}, and the model has {own.in_words()}: tuning={mode!r} tunes that; for another mode merge "
            "it first (merge_and_unload) or give the base model"
        )
    model.requires_grad_(False)
    with quiet_peft():
        model.set_adapter(own.name)
    mark_rows(model)
    named = {canonical(name): p for name, p in model.named_parameters() if p.requires_grad}
    kept = set(chosen(named, config.train, of="adapter parameter"))
    for name, parameter in named.items():
        parameter.requires_grad_(name in kept)
    return model.eval()
