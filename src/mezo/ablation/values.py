"""Readers: what a replacement in prose sets. One kind of reader for numbers, for choices, for switches."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mezo.ablation.numbers import direction, multiple, numbers
from mezo.ablation.words import folded, without_citations, without_contrast
from mezo.config import MeZOConfig


@dataclass(frozen=True)
class Reading:
    """Settings that a replacement's words stand for, and what should be known of how they were read."""

    settings: dict[str, Any] = field(hash=False)
    note: str = ""


class Refused(Exception):
    """The words are understood, and mean something that this package does not do; str() says why."""


# None: the words say nothing that the reader knows. Several readings: several variants ("2, 4 and 8").
Reader = Callable[[Any, MeZOConfig], "tuple[Reading, ...] | None"]

# Words of which parameters are tuned, or of how far they are moved, which no words on steps and pieces are.
MODULES = "norms?|epsilon|proportional|attention|mlps?|layer ?norms?|bias(es)?|embeddings?|only the (last|top|upper|first|bottom|lower|final)|(last|top|upper|bottom|lower|final) (\\d+ )?layers?"

_CHANGING = r"decay\w*|anneal\w*|schedul\w*|gradual\w*|adaptive\w*|dynamic\w*|cosine|over time|during training|(growing|shrinking|increasing|decreasing) (linear\w*|from|over)"

_NO = re.compile(
    r"^(?:no|not|without|disabl\w*|off|none|false|remov\w*|skip\w*|drop\w*|turn\w* off)\b|\b(?:disabled|turned off|switched off|is off|removed|unnormalized)\b"
)
_YES = re.compile(r"^(?:yes|with|enabl\w*|on|true|add\w*|use|using|apply)\b|\b(?:enabled|turned on)\b")


def number(
    name: str,
    symbols: str = "",
    *,
    whole: bool = False,
    low: float = 0.0,
    high: float = float("inf"),
    also: dict[str, Any] | None = None,
    off: Any = ...,
) -> Reader:
    """Numbers for the setting `name`, each a variant. whole: integers alone; others are not for it.

    low, high: numbers outside are not for it. also: settings that the number needs to have an effect.
    off: the setting's value for "none", if it has one.
    """

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        others = {k: v for k, v in (also or {}).items() if getattr(config, k) not in _allowed(v)}
        others = {k: v[0] if isinstance(v, tuple) else v for k, v in others.items()}
        if value is None or (isinstance(value, str) and _NO.search(folded(value))):
            return None if off is ... else (Reading({name: off}),)
        note, found = "", [float(value)] if _is_number(value) else []
        if isinstance(value, str):
            found, note = _from_text(value, symbols, getattr(config, name), whole)
        fit = [v for v in found if low <= v <= high and (not whole or v == int(v))]
        if not fit or len(fit) < len(found):
            return None
        return tuple(Reading({**others, name: int(v) if whole else v}, note) for v in fit)

    return read


def choice(*options: tuple[str, dict[str, Any] | str]) -> Reader:
    """The first option whose pattern is found in the folded text: settings, or why there are none."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        if not isinstance(value, str):
            return None
        text = folded(without_citations(without_contrast(value)))
        for pattern, settings in options:
            if re.search(rf"\b(?:{pattern})\b", text):
                if isinstance(settings, str):
                    raise Refused(settings)
                return (Reading(dict(settings)),)
        return None

    return read


def switch(name: str, on: Any = True, off: Any = False, *, more: Reader | None = None) -> Reader:
    """On or off, from words for them; `more` is asked first."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        if value is None or isinstance(value, bool):
            return (Reading({name: on if value else off}),)
        found = more(value, config) if more else None
        if found is not None or not isinstance(value, str):
            return found
        text = folded(without_contrast(value))
        return (
            (Reading({name: off}),)
            if _NO.search(text)
            else (Reading({name: on}),)
            if _YES.search(text)
            else None
        )

    return read


def first_of(*readers: Reader) -> Reader:
    """What the first reader that knows the words makes of them."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        return next((found for reader in readers if (found := reader(value, config)) is not None), None)

    return read


def with_number(reader: Reader, name: str, symbols: str, *, whole: bool = True) -> Reader:
    """`reader`, and a number for `name` where one is set beside: "LoRA (r = 16)", "10 prefix tokens"."""
    value = r"(\d+)(?![\d.]*\d)" if whole else r"(\d*\.\d+(?:e-?\d+)?|\d+e-?\d+)"
    before = re.compile(rf"(?i)(?<![\w-])(?:{symbols})[\s-]*(?:=|:|of|\()?\s*{value}")
    behind = re.compile(rf"(?i)(?<![\w.]){value}[ -](?:{symbols})\b")

    def read(text: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        found = reader(text, config)
        if not found or not isinstance(text, str):
            return found
        match = before.search(text) or behind.search(text)
        if match is None:
            return found
        given = {name: int(match[1]) if whole else float(match[1])}
        return tuple(Reading({**each.settings, **given}, each.note) for each in found)

    return read


def steady(reader: Reader) -> Reader:
    """`reader`, refusing what changes while a run goes on, for a setting that does not."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        text = folded(value) if isinstance(value, str) else ""
        if re.search(rf"\b(?:{_CHANGING})\b", text):
            raise Refused("it is the same at every step of a run here: name values for runs of their own")
        return reader(value, config)

    return read


def unless(pattern: str, reader: Reader) -> Reader:
    """`reader`, but for texts that mean something else: those in which the pattern is found."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        elsewhere = isinstance(value, str) and re.search(rf"\b(?:{pattern})\b", folded(value))
        return None if elsewhere else reader(value, config)

    return read


def _from_text(text: str, symbols: str, base: Any, whole: bool) -> tuple[list[float], str]:
    """Numbers in a text, or on the scale of the baseline's value; and how that was read."""
    text = _outside_brackets(without_contrast(text), symbols)
    text = re.sub(r"(?i)\bfrom\s+[^\s,;]+\s+to\s+", " ", text)  # the baseline's, and what comes instead
    factor = multiple(text)
    if factor is None and (found := numbers(text, symbols)):
        return found, ""
    way = direction(text)
    if not _is_number(base) or (factor is None and way == 0):
        return [], ""
    said = factor is not None
    factor = factor or (4.0 if whole else 10.0) ** way
    value = max(1.0, round(base * factor)) if whole else float(f"{base * factor:.12g}")
    return [value], f"{factor:g} times the baseline's {base:g}" + ("" if said else ", as no number is given")


def _outside_brackets(text: str, symbols: str) -> str:
    """What of a text says its number: "1e-4 (10x smaller)", "10x smaller (1e-4)", "16 (default: 1)"."""
    outside = re.sub(r"\([^()]*\)", " ", text)
    if outside == text:
        return text
    inside = " ".join(re.findall(r"\(([^()]*)\)", text))
    if numbers(outside, symbols) and multiple(outside) is None:
        return outside
    others = re.search(r"(?i)\b(default|baseline|original|paper|instead|was|from)\b|\w\s*/\s*\d", inside)
    if multiple(outside) is not None:
        return inside if numbers(inside, symbols) and multiple(inside) is None and not others else outside
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _allowed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
