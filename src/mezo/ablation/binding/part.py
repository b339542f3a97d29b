"""The parts of a method that can be ablated (parts.yaml, read once), and their settings, described from MeZOConfig."""

import json
from collections.abc import Mapping
from functools import cache, cached_property
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from mezo.config import MeZOConfig, choices_of
from mezo.util.parsing import parse_yaml

Settings = dict[str, Any]
_ENDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(";") if phrase.strip())


def _sayings(entries: list[dict[str, Any]]) -> list[tuple[str, Settings]]:
    # a list in the file is a tuple in the config
    sets = [{n: tuple(v) if isinstance(v, list) else v for n, v in each["set"].items()} for each in entries]
    return [(phrase, s) for each, s in zip(entries, sets, strict=True) for phrase in _phrases(each["say"])]


Phrases = Annotated[tuple[str, ...], BeforeValidator(_phrases)]
Sayings = Annotated[tuple[tuple[str, Settings], ...], BeforeValidator(_sayings)]  # (phrase, what it sets)


@dataclass(frozen=True)
class Reading:
    """The settings that a replacement's words stand for, and a note on how they were read."""

    settings: Settings
    note: str = ""


class Refused(Exception):
    """The words stand for no setting; str() says why."""


@dataclass(frozen=True, eq=False)
class NumberSetting:
    """A setting that is a number, and the phrases around the number. parts.yaml explains the fields."""

    setting: str
    symbols: Phrases = ()
    units: Phrases = ()
    needs: Mapping[str, list[str]] = Field(default_factory=dict)
    implied: bool = False
    bare: bool = True


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the method: an entry of parts.yaml, which explains the fields."""

    title: str
    settings: tuple[str, ...] = ()
    names: Phrases = ()
    present: Phrases = ()
    values: Sayings = ()
    own: Sayings = ()
    numbers: tuple[NumberSetting, ...] = ()
    off: Settings | str = "no value stands for its absence"
    switch: Settings | None = None
    reason: str = ""
    reader: str = ""

    @cached_property
    def settable(self) -> frozenset[str]:
        """The settings that a value of this part may change."""
        phrases = [*self.values, *self.own]
        named = {name for _, settings in phrases for name in settings}
        return frozenset(self.settings) | named | {number.setting for number in self.numbers}


def described(name: str) -> str:
    """What values a setting takes: "a number above 0, at most 1000", "one of full, lora, prefix, head, norms"."""
    schema = _schema()[name]
    forms = schema.get("anyOf", [schema])
    kinds = {form.get("type") for form in forms}
    if names := choices_of(name):
        text = f"one of {', '.join(names)}"
    elif "boolean" in kinds:
        text = "true or false"
    elif kinds & {"integer", "number"}:
        bounds = [f"{said} {form[end]:.6g}" for form in forms for end, said in _ENDS.items() if end in form]
        text = ", ".join(["a whole number" if "integer" in kinds else "a number", *bounds])
        text = ", or ".join([text, *(form["const"] for form in forms if "const" in form)])
    else:
        text = "text" if "string" in kinds else "a list of texts"
    return f"{text}, or null" if "null" in kinds else text


def table() -> str:
    """Every setting that a plan can change on a line: its name, its values, its default."""
    fields = MeZOConfig.model_fields
    return "\n".join(
        f"{name}: {described(name)}; default {json.dumps(fields[name].default)}"
        + (f". {text}" if (text := fields[name].description) else "")
        for name in settable()
    )


@cache
def parts() -> tuple[Part, ...]:
    """Every part; where a text names two of them equally, the earlier one counts."""
    text = files("mezo.ablation.binding").joinpath("parts.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Part, ...]).validate_python(parse_yaml(text))


def part_with(setting: str) -> Part | None:
    """The part of a setting of MeZOConfig."""
    return next((part for part in parts() if setting in part.settings), None)


def settable() -> tuple[str, ...]:
    """The settings of all parts that a plan may vary, in the order of the parts."""
    return tuple(dict.fromkeys(name for part in parts() if not part.reason for name in part.settings))


@cache
def _schema() -> dict[str, Any]:
    return MeZOConfig.model_json_schema()["properties"]
