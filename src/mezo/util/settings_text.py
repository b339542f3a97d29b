"""Settings as text: read from a YAML file, and shown in one line when they are wrong."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mezo.errors import MezoError
from mezo.util.foreign import read_text
from mezo.util.other_names import answer
from mezo.util.parsing import parse_yaml


def values_of(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, without what counts only from a person."""
    try:
        values = parse_yaml(read_text(path, pipe=True))
    except (OSError, ValueError) as error:
        raise MezoError(f"{path}: not a readable YAML config: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MezoError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return {str(key): value for key, value in values.items() if key != "trust_remote_code"}


def check_numbers(name: str, value: Any) -> None:
    """Raises ValueError for a number inside of options that no engine means."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_numbers(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_numbers(name, inner)
    elif isinstance(value, int | float) and not -(2**63) <= value < 2**64:  # NaN is not in between either
        raise ValueError(f"{name}: expected a finite number of 64 bits, found {brief(value)}")


class DifferingField(NamedTuple):
    """A field that two records do not share; None: the record has no such field."""

    name: str
    first: Any
    second: Any


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[DifferingField]:
    """The fields that differ, in their order; the settings under "config" one by one."""
    flat = []
    for record in (first, second):
        config = record.get("config")
        settings = config if isinstance(config, dict) else {"config": config}
        flat.append({**{name: value for name, value in record.items() if name != "config"}, **settings})
    one, other = flat
    rows = [DifferingField(name, one.get(name), other.get(name)) for name in one | other]
    return [row for row in rows if row.first != row.second]


def brief(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(error: ValidationError, fields: Any) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown setting {where!r}{answer(where, fields)}")
        elif item["type"] == "name":
            parts.append(item["msg"])
        elif where:
            parts.append(f"{where}={brief(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)


# What an engine's options say of the model, which a run's own settings say.
_OF_THE_MODEL = ("model_path", "model", "tokenizer_path", "tokenizer", "served_model_name")


def options_of(given: Any) -> dict[str, Any]:
    """An engine's own object of options (SGLang's ServerArgs, vLLM's EngineArgs) as pairs: what differs from its defaults.

    The model is left out: a run's settings name it.
    """
    found: dict[str, Any] = {}
    for each in dataclasses.fields(given):
        value = getattr(given, each.name)
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        if each.name in _OF_THE_MODEL or each.name.startswith("_") or value is None or value == default:
            continue
        if isinstance(value, str | int | float | bool | list | tuple | dict):
            found[each.name] = value
    return found
