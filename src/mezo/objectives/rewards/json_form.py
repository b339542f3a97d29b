"""The output is JSON, of the form that a schema describes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import LONGEST, Function
from mezo.util.foreign import read_text

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL)
_DEEPEST = 64  # of nested lists and objects: a schema is followed by functions that call themselves


def json_form(schema: str | None = None, partial: float = 0.0) -> Function:
    """1 if the output is JSON that fits the schema, `partial` if it is JSON that does not, else 0.

    White space around it, or a fence of three backticks, does not count. Without a schema, an object or a list will do.

    Args:
        schema: a file with a JSON schema, or the schema itself, {"type": ...}. It may not refer to other files.
        partial: for JSON that does not fit.

    Raises MezoError if the schema is invalid, or the package jsonschema is not installed.

    Example:
        >>> judge = json_form(schema='{"type": "object", "required": ["team"]}', partial=0.2)
        >>> [judge({}, said) for said in ('{"team": "web"}', '{"t": 1}', "web")]
        [1.0, 0.2, 0.0]
    """
    fits = _validator(schema) if schema is not None else lambda value: isinstance(value, dict | list)

    def judge(row: Mapping[str, Any], output: str) -> float:
        text = output[: LONGEST + 1].strip()
        if fenced := _FENCED.search(text):
            text = fenced[1]
        if len(text) > LONGEST or _depth(text) > _DEEPEST:
            return 0.0
        try:
            value = json.loads(text, parse_constant=_refused)
        except (ValueError, RecursionError):
            return 0.0
        return 1.0 if fits(value) else float(partial)

    return judge


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth(text: str) -> int:
    """At most: brackets within texts count too."""
    depth = deepest = 0
    for mark in re.findall(r"[\[{\]}]", text):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _validator(schema: str) -> Any:
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise MezoError(
            "reward 'json' with a schema needs the package jsonschema: pip install 'mezo-llm[rewards]'"
        ) from None
    held = schema.lstrip().startswith("{")
    where = "reward 'json'" if held else f"reward 'json': {schema}"
    try:
        found = json.loads(schema if held else read_text(Path(schema).expanduser()))
        kind = validator_for(found)
        kind.check_schema(found)
    except (OSError, ValueError, RecursionError, SchemaError) as error:
        raise MezoError(f"{where}: expected a JSON schema: {' '.join(str(error).split())[:200]}") from None
    validator = kind(found, registry=Registry())  # what it refers to is within it: nothing is fetched

    def fits(value: Any) -> bool:
        try:
            return validator.is_valid(value)
        except Unresolvable as error:
            raise MezoError(
                f"{where}: refers to {error}, which is not in it: write it into the schema"
            ) from None

    return fits
