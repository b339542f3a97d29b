"""Prompt templates: text with {field} for fields of a row, and {mask}."""

import string
from functools import lru_cache

from mezo.errors import MezoError
from mezo.tasks.base import MASK
from mezo.tasks.row import Row


def names_in(template: str) -> list[str]:
    """The names in braces, in order. Raises MezoError if it is no template."""
    return [name for _, name in _pieces(template) if name is not None]


def filled(template: str, row: Row, gives_way: str | None = None) -> tuple[str, str, str]:
    """(head, text, tail) of the prompt; `text` is the field that is cut where a prompt is too long.

    gives_way: that field; None: the first one of the row in the template.
    """
    pieces = _pieces(template)
    wanted = [gives_way] if gives_way else [name for _, name in pieces if name not in (None, "mask")]
    parts = [(literal, _value(row, name)) for literal, name in pieces]
    cut = next(i for i, (_, name) in enumerate(pieces) if name == wanted[0])
    head = "".join(literal + value for literal, value in parts[:cut]) + parts[cut][0]
    return head, parts[cut][1], "".join(literal + value for literal, value in parts[cut + 1 :])


def _value(row: Row, name: str | None) -> str:
    if name is None:
        return ""
    return MASK if name == "mask" else row.text(name).strip()


@lru_cache(maxsize=64)
def _pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """(literal text, the field after it or None), in order."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise MezoError(
            f"template {template!r}: {error}; write {{{{ or }}}} for a brace that is meant"
        ) from None
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise MezoError(f"template {template!r}: expected a field's name in braces, found {{{name}}}")
    return tuple((literal, name) for literal, name, _, _ in parsed)
