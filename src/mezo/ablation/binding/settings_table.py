"""The settings that a plan can change, described from MeZOConfig: name, type, range, default."""

import json
from typing import Any, get_args

from mezo.ablation.binding.part import parts
from mezo.config import MeZOConfig, choices_of


def settable() -> tuple[str, ...]:
    """The settings of all parts that a plan may vary, in the order of the parts."""
    return tuple(dict.fromkeys(name for part in parts() if not part.reason for name in part.settings))


def described(name: str) -> str:
    """What values a setting takes: "a number above 0, at most 1000", "one of full, lora, prefix, head"."""
    field = MeZOConfig.model_fields[name]
    kinds = set(get_args(field.annotation)) or {field.annotation}
    if names := choices_of(name):
        text = f"one of {', '.join(names)}"
    elif bool in kinds:
        text = "true or false"
    elif kinds & {int, float}:
        bounds = [words for item in field.metadata for words in _bounds(item)]
        text = ", ".join(["a whole number" if int in kinds else "a number", *bounds])
    elif str in kinds:
        text = "text"
    else:
        text = "a list of texts"
    return f"{text}, or null" if type(None) in kinds else text


def table() -> str:
    """Every setting that a plan can change on a line: its name, its values, its default."""
    fields = MeZOConfig.model_fields
    return "\n".join(
        f"{name}: {described(name)}; default {json.dumps(fields[name].default)}"
        + (f". {text}" if (text := fields[name].description) else "")
        for name in settable()
    )


def _bounds(item: Any) -> list[str]:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    return [f"{said} {getattr(item, name):.6g}" for name, said in words.items() if hasattr(item, name)]
