"""A replacement as settings, read whole or refused: names, numbers, lists, and what "with" and "and" join.

Every token has to be part of a phrase of parts.yaml, a number that belongs to a setting, a mark, or a small word. Words
that are left over are named in the refusal, so a variant is never set to less than it says.
"""

import re
from typing import Any

from mezo.ablation.binding.elements import Element, Name, Number, Value, bare, elements
from mezo.ablation.binding.literal_values import READERS
from mezo.ablation.binding.part import NumberSetting, Part, Reading, Refused, Settings
from mezo.ablation.binding.part_names import names
from mezo.ablation.binding.settings_table import described
from mezo.ablation.binding.tokens import Token, tokens
from mezo.ablation.plans.fields import split
from mezo.config import MeZOConfig

_NOTHING = re.compile("none|off|no|without|disabled|false|removed?|nothing")
_PRESENT = re.compile("on|true|enabled|yes")
_ALTERNATIVES = re.compile(r"(?i)\s*;\s*|\s+\|\s+|(?<!\d)\s+/\s+|\s+/\s+(?!\d)|,?\s+or\s+")


def read(value: Any, part: Part, config: MeZOConfig) -> tuple[Reading, ...]:
    """What a replacement in a study of `part` sets; several readings are several variants.

    Raises Refused with the words that are not understood.
    """
    if part.reason:
        raise Refused(part.reason)
    if part.reader and (custom := READERS[part.reader](value, config)):
        return (custom,)
    if value is None or isinstance(value, bool):
        return (_switched(part, bool(value)),)
    if isinstance(value, int | float):
        return _settled([Number(str(value), (float(value),), bare(part))], part, config)
    if not isinstance(value, str):
        raise Refused(f"expected words or a number, found {value!r:.80}")
    if switched := _switch_in(tokens(value), part):
        return (switched,)
    pieces = split(_ALTERNATIVES.sub("\0", value), "\0")
    joined = ";" not in value and any(re.search(r"(?i)\b(?:with|and|at)\b", piece) for piece in pieces)
    if len(pieces) > 1 and joined:
        raise Refused(
            "it joins several values, and does not say which of them 'with' or 'and' is of: name each alone"
        )
    readings: list[Reading] = []
    for piece in pieces or [value]:
        for reading in _settled(elements(tokens(piece), part), part, config):
            if reading.settings not in [each.settings for each in readings]:
                readings.append(reading)
    return tuple(readings)


def takes(part: Part) -> str:
    """The values of a part's first setting, for people."""
    return described(part.settings[0]) if part.settings else "no value"


def _switched(part: Part, on: bool) -> Reading:
    settings = part.switch if on else part.off
    if not isinstance(settings, dict):
        raise Refused(f"{'on' if on else 'off'} is no value of the {part.title}, which takes {takes(part)}")
    return Reading(settings)


def _switch_in(words: tuple[Token, ...], part: Part) -> Reading | None:
    """ "none", "no momentum", "without weight decay" of the part itself; "on" of one that is on or off."""
    if part.switch and len(words) == 1 and _PRESENT.fullmatch(words[0].stem):
        return Reading(part.switch)
    if not words or not _NOTHING.fullmatch(words[0].stem) or not isinstance(part.off, dict):
        return None
    return Reading(part.off) if len(words) == 1 or names(words[1:], part) else None


def _settled(parsed: list[Element], part: Part, config: MeZOConfig) -> tuple[Reading, ...]:
    """The settings of all elements together: one reading, or one for each number of a list."""
    settings: Settings = {}
    for element in parsed:
        if isinstance(element, Value):
            _merge(settings, _settings_of(element), element.text)
    chosen = [(e, _setting_of(e, part, settings)) for e in parsed if isinstance(e, Number)]
    lists = [e for e, _ in chosen if len(e.values) > 1]
    if len(lists) > 1:
        raise Refused(f"'{lists[0].text}' and '{lists[1].text}' are two lists: name one, or write set:")
    readings = []
    for place in range(len(lists[0].values) if lists else 1):
        found = dict(settings)
        for element, number in chosen:
            value = element.values[place if len(element.values) > 1 else 0]
            _merge(found, {number.setting: _number(value, number, element.text)}, element.text)
            _merge(found, _needed(number, found, config), element.text)
        _check(found, parsed, part)
        readings.append(Reading(found))
    return tuple(readings)


def _settings_of(element: Value) -> Settings:
    meanings = element.meanings
    if any(m.settings != meanings[0].settings for m in meanings):
        titles = ", ".join(m.part.title for m in meanings)
        raise Refused(f"'{element.text}' may be of several parts: {titles}")
    return meanings[0].settings or {}


def _setting_of(element: Number, part: Part, settings: Settings) -> NumberSetting:
    """The setting that a number is of: the part's own, one that the other words call for, or the only one."""
    own = [q for q in element.settings if q in part.numbers]
    met = [q for q in element.settings if all(settings.get(n) in allowed for n, allowed in q.needs.items())]
    others = [*(q for q in met if q.needs), *(q for q in element.named if q in met or q.implied)]
    found = own or list({q.setting: q for q in others}.values())
    if not found:
        raise Refused(f"'{element.text}' is not understood")
    if len(found) > 1:
        raise Refused(f"'{element.text}' may be {' or '.join(q.setting for q in found)}")
    return found[0]


def _number(value: float, number: NumberSetting, text: str) -> float | int:
    """The value for the setting. Its range is checked with the rest of the variant's settings."""
    if "a whole number" not in described(number.setting):
        return float(f"{value:.12g}")
    if value != int(value):
        raise Refused(f"{number.setting} takes {described(number.setting)}, found '{text}'")
    return int(value)


def _needed(number: NumberSetting, settings: Settings, config: MeZOConfig) -> Settings:
    """The settings without which a number has no effect, where neither the words nor the baseline have them."""
    return {
        need: settings[need] if settings.get(need) in allowed else allowed[0]
        for need, allowed in number.needs.items()
        if need in settings or getattr(config, need) not in allowed
    }


def _merge(settings: Settings, more: Settings, text: str) -> None:
    for name, value in more.items():
        if name in settings and settings[name] != value:
            raise Refused(f"'{text}' sets {name} to {value}, other words of the variant to {settings[name]}")
        settings[name] = value


def _check(settings: Settings, parsed: list[Element], part: Part) -> None:
    """Raises Refused for names without a value, and for values that do not set the study's part."""
    for element in parsed:
        if isinstance(element, Name) and not any(
            m.number.setting in settings
            if m.number
            else m.part is part or settings.keys() & set(m.part.settings)
            for m in element.meanings
        ):
            raise Refused(f"'{element.text}' is not understood")
    if not settings:
        raise Refused("it says no value")
    if not part.settable & settings.keys():
        raise Refused(f"it sets {', '.join(settings)} and says no value of the {part.title}")
    if {"batch_size", "gradient_accumulation"} <= settings.keys():
        raise Refused("it does not say whether the batch is one microbatch or the sum of all: write set:")
