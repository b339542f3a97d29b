"""What a reader of a variant's numbers should know: settings that ask for others beside them."""

from typing import Any

from mezo.config import MeZOConfig

_RATES = "at the baseline's learning rate and epsilon; others may suit it better (set: gives them)"
_CAUTIONS: dict[tuple[str, Any], str] = {
    # Tables 15 and 16 of the paper: each tuning mode has its own
    **{("tuning", mode): _RATES for mode in ("full", "lora", "prefix", "head")},
    # docs/perturbations.md: they differ by the number of weights and its root
    ("normalize_perturbations", True): _RATES,
    # docs/estimators.md: their values are no slopes, or far noisier ones
    **{("estimator", name): _RATES for name in ("one-point", "sign", "fzoo")},
    **{
        ("optimizer", name): "at the baseline's learning rate; another may suit it better (set: gives it)"
        for name in ("adam", "adam-rebuilt")
    },
    (
        "granularity",
        "element",
    ): "noise is drawn for 128 weights and one of them is moved: a step takes about a hundred times longer",
}


def caution(settings: dict[str, Any], config: MeZOConfig) -> str:
    """One line, or "" where there is nothing to know."""
    changed = {name: value for name, value in settings.items() if getattr(config, name, None) != value}
    found = [
        text for (name, value), text in _CAUTIONS.items() if changed.get(name) == value and name in changed
    ]
    if {"learning_rate", "epsilon"} & changed.keys():
        found = [text for text in found if "learning rate" not in text]
    if "rounding" in changed and settings.get("dtype", config.dtype) == "float32":
        found.append("rounding is of 16-bit weights; the weights are float32")
    return "; ".join(dict.fromkeys(found))
