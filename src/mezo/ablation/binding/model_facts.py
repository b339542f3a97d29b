"""What a model's config file states, read without loading the model."""

from dataclasses import dataclass
from pathlib import Path

from mezo.models import smollm2
from mezo.util.parsing import parse_json


@dataclass(frozen=True, slots=True)
class ModelFacts:
    layers: int | None = None  # None: not known before the model is fetched
    masked: bool = False


_BUILT_IN = {smollm2.NAME: ModelFacts(layers=30)}  # its file is pinned by a hash


def facts_of(model: str) -> ModelFacts:
    """Number of layers and kind of a model in a folder, or of the built-in one."""
    if model in _BUILT_IN:
        return _BUILT_IN[model]
    try:
        config = parse_json((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ModelFacts()
    if not isinstance(config, dict):
        return ModelFacts()
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    counts = [config[name] for name in names if isinstance(config.get(name), int)]
    listed = config.get("architectures")
    kinds = " ".join(map(str, listed if isinstance(listed, list) else ()))
    return ModelFacts(counts[0] if counts else None, "MaskedLM" in kinds)
