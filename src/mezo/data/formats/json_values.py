"""JSON values of other people's files, with errors that name the place."""

import json
from typing import Any

from mezo.errors import MezoError


def decoded(data: bytes, where: str, *, first: bool) -> str:
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise MezoError(
            f"{where}: expected UTF-8, found byte 0x{data[error.start]:02x} at position {error.start}; "
            "save the file as UTF-8"
        ) from None


def parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, where))
    except json.JSONDecodeError as error:
        if "\r" in text.strip() and "\n" not in text.strip():
            raise MezoError(
                f"{where}: expected lines that end in a line feed, found bare carriage returns: save the file with "
                "Unix line ends"
            ) from None
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        reason = error.msg[0].lower() + error.msg[1:]
        raise MezoError(f"{where}: expected a JSON value, found broken JSON: {reason} ({place})") from None
    except MezoError:
        raise
    except (ValueError, RecursionError) as error:  # a number of too many digits; brackets nested too deep
        raise MezoError(f"{where}: expected a JSON value of ordinary size: {error}") from None


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """The object of these keys. JSON leaves it open which of two equal keys counts."""
    made = dict(pairs)
    if len(made) < len(pairs):
        key = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise MezoError(
            f"{where}: expected each key once in an object, found {key!r:.60} twice: leave one out"
        )
    return made


def object_of(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MezoError(
            f'{where}: expected a JSON object such as {{"prompt": ...}}, found {kind_of_value(value)}'
        )
    return value


def kind_of_value(value: object) -> str:
    names = {
        list: "a list",
        dict: "an object",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
