"""Values that are no phrase and no number: which layers are tuned, modules, a prompt's template, label words."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.ablation.binding.part import Reading, Refused
from mezo.ablation.binding.text import tokens
from mezo.config import MeZOConfig
from mezo.models import smollm2
from mezo.util.parsing import parse_json

_LAYERS = re.compile(r"(?:only )?(?:the )?(last|top|first|bottom) (\d+) (?:transformer )?layer(?: only)?")


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
        config = None
    if not isinstance(config, dict):
        return ModelFacts()
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    counts = [config[name] for name in names if isinstance(config.get(name), int)]
    return ModelFacts(counts[0] if counts else None, "MaskedLM" in str(config.get("architectures")))


def numbered_layers(value: Any, config: MeZOConfig) -> Reading | None:
    """ "only the last 4 layers", as a pattern for the names of their parameters."""
    if _is_texts(value):
        return Reading({"train": tuple(value)})
    found = (
        _LAYERS.fullmatch(" ".join(token.stem for token in tokens(value))) if isinstance(value, str) else None
    )
    if found is None:
        return None
    layers, count = facts_of(config.model).layers, int(found[2])
    if layers is None:
        raise Refused(
            f"the number of layers of {config.model!r} is not known before it is fetched: write set: {{train: [...]}}"
        )
    if not 1 <= count <= layers:
        raise Refused(f"the baseline's model has {layers} layers, the plan asks for {count}")
    chosen = range(layers - count, layers) if found[1] in ("last", "top") else range(count)
    pattern = rf"\b(?:layers?|h|blocks?)\.(?:{'|'.join(map(str, chosen))})\."
    return Reading({"train": (pattern,)}, f"{count} of the model's {layers} layers")


def module_names(value: Any, config: MeZOConfig) -> Reading | None:
    return Reading({"tuning": "lora", "lora_targets": tuple(value)}) if _is_texts(value) else None


def template(value: Any, config: MeZOConfig) -> Reading | None:
    """A template in quotes or behind its name; the task's fields alone for "no prompt"."""
    if value is None or (
        isinstance(value, str) and re.fullmatch(r"(?i)(?:no|without|empty) prompts?|none", value.strip())
    ):
        mask = " {mask}" if facts_of(config.model).masked else ""
        bare = " ".join(f"{{{name}}}" for name in _fields(config))
        return Reading({"template": bare + mask}, f"the task's fields alone: {bare}")
    if not isinstance(value, str):
        return None
    text = re.sub(r"(?i)^\s*(?:prompt|template)\s*:\s*", "", value).strip()
    quoted = re.fullmatch(r"([\"'`“‘])(.+)[\"'`”’]", text, re.S)
    if text == value.strip() and not quoted:
        return None
    text = quoted[2] if quoted else text
    return _checked(text, config) if re.search(r"\{\w+\}", text) else None


def label_words(value: Any, config: MeZOConfig) -> Reading | None:
    """A list of words, or the words in quotes, as many as the task has classes."""
    from mezo.data.from_config import task_of

    if isinstance(value, str) and re.fullmatch(r"(?:\s*[\"'][^\"']+[\"']\s*(?:,|/|$))+", value):
        value = re.findall(r"[\"']([^\"']+)[\"']", value)
    if not isinstance(value, list) or len(value) != len(task_of(config).label_words):
        return None
    return Reading(
        {"label_words": tuple(str(word).strip() for word in value)}, "in the task's order of classes"
    )


READERS: dict[str, Callable[[Any, MeZOConfig], Reading | None]] = {
    each.__name__: each for each in (numbered_layers, module_names, template, label_words)
}


def _checked(text: str, config: MeZOConfig) -> Reading:
    """A template with the place of its answer at the end."""
    text = re.sub(r"(?i)\{(?:label|answer|label_words?|verbali[sz]er)\}|\[mask\]|<mask>", "{mask}", text)
    known = _fields(config)
    unknown = set(re.findall(r"\{(\w+)\}", text)) - {*known, "mask"}
    if unknown:
        raise Refused(
            f"rows of {config.task} have {', '.join(known)}, the template names {', '.join(sorted(unknown))}"
        )
    if facts_of(config.model).masked:
        return Reading({"template": text if "{mask}" in text else f"{text} {{mask}}"})
    before, _, after = text.partition("{mask}")
    if after.strip(" ."):
        raise Refused("the template continues after the answer, and the model writes the answer at the end")
    return Reading({"template": before.rstrip()})


def _fields(config: MeZOConfig) -> list[str]:
    from mezo.data.from_config import task_of

    return [name for name in task_of(config).fields if name not in ("label", "answer", "idx")]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
