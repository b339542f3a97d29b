"""Which tensors are tuned. One function a mode: it makes a model ready and marks what is tuned."""

from collections.abc import Callable
from typing import Any

from mezo.config import MeZOConfig
from mezo.models.offloaded import check_here, is_offloaded
from mezo.tuning.evidence import write_evidence
from mezo.tuning.full import full
from mezo.tuning.head import head, untie
from mezo.tuning.label_rows import LabelRows, head_of, write_rows
from mezo.tuning.lora import lora, lora_targets, tuned_modules
from mezo.tuning.norms import norms
from mezo.tuning.own_adapter import own_adapter, tune_own
from mezo.tuning.prefix import prefix
from mezo.tuning.saving import save, with_adapter
from mezo.util.plugins import find
from mezo.weights.weights import Weights

__all__ = [
    "TUNING",
    "full",
    "head",
    "lora",
    "lora_targets",
    "norms",
    "prefix",
    "save",
    "tune",
    "tuned_modules",
    "with_adapter",
]

TUNING: dict[str, Callable[..., Any]] = {  # (model, config) -> the model made ready
    "full": full,
    "lora": lora,
    "prefix": prefix,
    "head": head,
    "norms": norms,
}


def tune(model: Any, config: MeZOConfig, rows: LabelRows | None = None) -> tuple[Any, Weights]:
    """The model made ready for the config's tuning mode, and the weights that are tuned.

    The model is changed in place. A peft adapter that it has is tuned, and none is added. rows: of label words, that it
    starts from. Raises MezoError for a mode that is not there, or that this model
    does not allow, and for `train` patterns that name nothing.
    """
    mode, settings = find("tuning", config.tuning, TUNING)
    own = own_adapter(model)
    if rows is not None and config.tuning == "lora":
        settings = {"rows": rows}
    ready = mode(model, config, **settings) if own is None else tune_own(model, own, config)
    if rows is not None and config.tuning != "lora":
        # which leaves the input embedding as it is, whatever of the head is tuned
        if config.tuning == "head":
            untie(ready, head_of(ready)[1])
        write_rows(ready, rows)
        if rows.evidence is not None:
            write_evidence(ready, rows.evidence)
    named = [(name, p) for name, p in ready.named_parameters() if p.requires_grad]
    if is_offloaded(ready):
        for name, tensor in named:
            check_here(name, tensor, config.tuning)
    weights = Weights(named, kind=config.noise, rank=config.noise_rank)
    ready.requires_grad_(False)
    return ready, weights
