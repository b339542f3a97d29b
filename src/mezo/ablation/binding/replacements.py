"""Prose as settings, read whole or refused: names, numbers, lists, and what "with" and "and" join.

Every token has to be part of a phrase of the table, a number that belongs to one, a mark, or a small word. What is left
over is named in the refusal, so a variant is never set to less than it says.
"""

import re
from collections.abc import Iterator
from typing import Any

from mezo.ablation.binding.elements import Element, Name, Number, Value, bare, elements
from mezo.ablation.plans.fields import split
from mezo.ablation.binding.part_names import names
from mezo.ablation.binding.part import Meaning, Part, Quantity, Reading, Refused, Settings
from mezo.ablation.binding.tokens import Token, tokens
from mezo.config import MeZOConfig

_NOTHING = frozenset(["none", "off", "no", "without", "disabled", "false", "remove", "removed", "nothing"])


def read(value: Any, part: Part, config: MeZOConfig) -> tuple[Reading, ...]:
    """What a replacement in a study of `part` sets; several readings are several variants.

    Raises Refused with the words that are not understood.
    """
    if part.reason:
        raise Refused(part.reason)
    if part.reader is not None and (custom := part.reader(value, config)):
        return (custom,)
    if value is None or isinstance(value, bool):
        return (_switched(part, bool(value)),)
    if isinstance(value, int | float):
        number = Token(str(value), str(value), float(value))
        element = Number(str(value), (number,), bare(part))
        return tuple(_settled([element], part, config))
    if not isinstance(value, str):
        raise Refused(f"expected words or a number, found {value!r:.80}")
    if absence := _absence(tokens(value), part):
        return (absence,)
    pieces = _alternatives(value)
    _check_shared(pieces, value)
    found = [reading for piece in pieces for reading in _one(piece, part, config)]
    return tuple(r for n, r in enumerate(found) if r.settings not in [s.settings for s in found[:n]])


def _one(text: str, part: Part, config: MeZOConfig) -> list[Reading]:
    """The readings of a text; where its commas part values of one kind, of each piece."""
    try:
        return list(_settled(elements(tokens(text), part), part, config))
    except Refused as refusal:
        pieces = split(re.sub(r",\s+", "\0", text), "\0")
        if len(pieces) < 2:
            raise
        _check_shared(pieces, text)
        try:
            found = [list(_settled(elements(tokens(piece), part), part, config)) for piece in pieces]
        except Refused:
            raise refusal from None
        readings = [reading for each in found for reading in each]
        kinds = {frozenset(reading.settings) for reading in readings}
        several = any(isinstance(value, tuple) for r in readings for value in r.settings.values())
        if len(kinds) > 1 or several:  # "attention, MLP" may be both together
            raise
        return readings


def _check_shared(pieces: list[str], text: str) -> None:
    """Raises Refused for "LoRA or prefix with n = 4", which does not say whether n is of both."""
    if (
        len(pieces) > 1
        and ";" not in text
        and any(re.search(r"(?i)\b(?:with|and|at)\b", piece) for piece in pieces)
    ):
        raise Refused(
            "it joins several values, and does not say which of them 'with' or 'and' is of: name each alone"
        )


def _alternatives(text: str) -> list[str]:
    marked = re.sub(r"(?i)\s*;\s*|\s+\|\s+|(?<!\d)\s+/\s+|\s+/\s+(?!\d)|,?\s+or\s+", "\0", text)
    pieces = split(marked, "\0")
    return pieces if len(pieces) > 1 else [text]


def _switched(part: Part, on: bool) -> Reading:
    settings = part.switch if on else part.off
    if not isinstance(settings, dict):
        raise Refused(f"{'on' if on else 'off'} is no value of the {part.title}, which takes {part.takes}")
    return Reading(settings)


def _absence(words: tuple[Token, ...], part: Part) -> Reading | None:
    """ "none", "no momentum", "without weight decay" of the part itself."""
    if not words or words[0].stem not in _NOTHING:
        if part.switch and [word.stem for word in words] in (["on"], ["true"], ["enabled"], ["yes"]):
            return Reading(part.switch)
        return None
    rest = words[1:]
    if rest and not names(rest, part):
        return None
    return Reading(part.off) if isinstance(part.off, dict) else None


def _settled(parsed: list[Element], part: Part, config: MeZOConfig) -> Iterator[Reading]:
    """The settings of all elements together, a reading for each number of a list."""
    settings: Settings = {}
    for element in parsed:
        if isinstance(element, Value):
            _merge(settings, _only(element).settings or {}, element.text)
    chosen = [(e, _quantity(e, part, settings)) for e in parsed if isinstance(e, Number)]
    lists = [e for e, _ in chosen if len(e.values) > 1]
    if len(lists) > 1:
        raise Refused(f"'{lists[0].text}' and '{lists[1].text}' are two lists: name one, or write set:")
    for number in range(len(lists[0].values) if lists else 1):
        found, notes = dict(settings), []
        # the number of steps goes first: a warm-up may be a share of it
        for element, quantity in sorted(chosen, key=lambda pair: pair[1].setting != "num_steps"):
            token = element.values[number if len(element.values) > 1 else 0]
            value, note = _value(element, token, quantity, config, found)
            notes.append(note)
            _merge(found, {quantity.setting: value}, element.text)
            for need, allowed in quantity.needs.items():
                if need in found or getattr(config, need) not in allowed:
                    _merge(
                        found, {need: found[need] if found.get(need) in allowed else allowed[0]}, element.text
                    )
        _check(found, parsed, part)
        yield Reading(found, "; ".join(filter(None, dict.fromkeys(notes))))


def _only(element: Value) -> Meaning:
    meanings = element.meanings
    if any(m.settings != meanings[0].settings for m in meanings):
        titles = ", ".join(m.part.title for m in meanings)
        raise Refused(f"'{element.text}' may be of several parts: {titles}")
    return meanings[0]


def _quantity(element: Number, part: Part, settings: Settings) -> Quantity:
    """The quantity that a number is of: the study's own, one that the other words call for, or the only one."""
    own = [q for q in element.quantities if q in part.quantities]
    met = [q for q in element.quantities if all(settings.get(n) in allowed for n, allowed in q.needs.items())]
    others = [*(q for q in met if q.needs), *(q for q in element.symbols if q in met or q.implied)]
    found = own or list({q.setting: q for q in others}.values())
    if not found:
        raise Refused(f"'{element.text}' is not understood")
    if len(found) > 1:
        names = " or ".join(q.setting for q in found)
        raise Refused(f"'{element.text}' may be {names}")
    return found[0]


def _value(
    element: Number, token: Token, quantity: Quantity, config: MeZOConfig, settings: Settings
) -> tuple[float | int, str]:
    """The number as the setting's value, and a note on how it was found."""
    value, note = token.value or 0.0, ""
    base = settings.get("num_steps", config.num_steps)
    if element.factor and quantity.scale:
        raise Refused(f"'{element.text}' does not say of what")
    if element.factor:
        before = getattr(config, quantity.setting)
        if not before:
            raise Refused(f"'{element.text}' is not understood: the baseline has no {quantity.setting}")
        value, note = before * value, f"{value:g} times the baseline's {before:g}"
    elif quantity.scale == "percentile":
        value = value / 100 if token.unit == "th" else value
    elif token.unit == "%" and quantity.scale == "share of steps":
        value, note = round(base * value / 100), f"{token.text} of {base:,} steps"
    elif token.unit:
        raise Refused(f"'{token.text}' of '{element.text}' is not understood")
    value = float(f"{value:.12g}")
    if not quantity.low <= value <= quantity.high or (quantity.whole and value != int(value)):
        kind = "a whole number" if quantity.whole else "a number"
        raise Refused(
            f"{quantity.setting} takes {kind} from {quantity.low:g} to {quantity.high:g}, found '{element.text}'"
        )
    return (int(value) if quantity.whole else value), note


def _merge(settings: Settings, more: Settings, text: str) -> None:
    for name, value in more.items():
        if name in settings and settings[name] != value:
            raise Refused(f"'{text}' sets {name} to {value}, other words of the variant to {settings[name]}")
        settings[name] = value


def _check(settings: Settings, parsed: list[Element], part: Part) -> None:
    """Raises Refused for names that nothing was said of, and for what does not set the study's part."""
    for element in parsed:
        if isinstance(element, Name) and not any(
            p is part or p.settable & settings.keys() for p in element.parts
        ):
            raise Refused(f"'{element.text}' is not understood")
    if not settings:
        raise Refused("it says no value")
    if not part.settable & settings.keys():
        raise Refused(f"it sets {', '.join(settings)} and says no value of the {part.title}")
    if {"batch_size", "gradient_accumulation"} <= settings.keys():
        raise Refused("it does not say whether the batch is one microbatch or the sum of all: write set:")
