"""What the config file of a model says of it, without loading the model."""

from dataclasses import dataclass
from pathlib import Path

from mezo import smollm2
from mezo.parsing import parse_json


@dataclass(frozen=True, slots=True)
class Facts:
    layers: int | None = None  # None: not known without fetching the model
    masked: bool = False


# Its file is pinned by a hash, so this can be said before it is fetched.
_BUILT_IN = {smollm2.NAME: Facts(layers=30)}


def facts_of(model: str) -> Facts:
    """Number of layers and kind of a model in a folder, or of the built-in one; of others nothing."""
    if model in _BUILT_IN:
        return _BUILT_IN[model]
    try:
        config = parse_json((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Facts()
    if not isinstance(config, dict):
        return Facts()
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    counts = [config[name] for name in names if isinstance(config.get(name), int)]
    listed = config.get("architectures")
    kinds = " ".join(map(str, listed if isinstance(listed, list) else ()))
    return Facts(counts[0] if counts else None, "MaskedLM" in kinds)
