"""A replacement as settings, read whole or refused: names, numbers, lists, and what "with" and "and" join.

Every token has to be part of a phrase of parts.yaml, a number that belongs to a setting, a mark, or a small word. Words
that are left over are named in the refusal, so a variant is never set to less than it says.
"""

import re
from dataclasses import dataclass
from typing import Any

from mezo.ablation.binding.lexicon import SMALL, Meaning, lexicon, longest, names, spans, stems, values_of
from mezo.ablation.binding.literal_values import READERS
from mezo.ablation.binding.part import NumberSetting, Part, Reading, Refused, Settings, described
from mezo.ablation.binding.text import Token, tokens
from mezo.ablation.plans.fields import split
from mezo.config import MeZOConfig

_NOTHING = re.compile("none|off|no|without|disabled|false|removed?|nothing")
_PRESENT = re.compile("on|true|enabled|yes")
_ALTERNATIVES = re.compile(r"(?i)\s*;\s*|\s+\|\s+|(?<!\d)\s+/\s+|\s+/\s+(?!\d)|,?\s+or\s+")
_LINKS = frozenset(["=", ":", "of", "is", "at", "∈", "(", "{", "["])  # between a symbol and its number
_IN_ANY_STUDY = ("name", "symbol")
_AROUND_NUMBERS = (*_IN_ANY_STUDY, "unit")


@dataclass(frozen=True)
class Element:
    """A part of a replacement's text: a phrase that sets something, a part's name that sets nothing, or numbers."""

    text: str
    meanings: tuple[Meaning, ...] = ()  # of a phrase or a name
    sets: bool = False  # whether a phrase sets something
    values: tuple[float, ...] = ()  # of numbers
    settings: tuple[NumberSetting, ...] = ()  # that the numbers may be of
    named: tuple[NumberSetting, ...] = ()  # of these, the ones that the words name in any study


def read(value: Any, part: Part, config: MeZOConfig) -> tuple[Reading, ...]:
    """What a replacement in a study of `part` sets; several readings are several variants.

    Raises Refused with the words that are not understood.
    """
    if part.reason:
        raise Refused(part.reason)
    if part.reader and (custom := READERS[part.reader](value, config)):
        return (custom,)
    if value is None or isinstance(value, bool):
        settings = part.switch if value else part.off
        if not isinstance(settings, dict):
            on = "on" if value else "off"
            raise Refused(f"{on} is no value of the {part.title}, which takes {takes(part)}")
        return (Reading(settings),)
    if isinstance(value, int | float):
        return _settled([Element(str(value), values=(float(value),), settings=_bare(part))], part, config)
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
        for reading in _settled(_elements(tokens(piece), part), part, config):
            if reading.settings not in [each.settings for each in readings]:
                readings.append(reading)
    return tuple(readings)


def takes(part: Part) -> str:
    """The values of a part's first setting, for people."""
    return described(part.settings[0]) if part.settings else "no value"


def _switch_in(words: tuple[Token, ...], part: Part) -> Reading | None:
    """ "none", "no momentum", "without weight decay" of the part itself; "on" of one that is on or off."""
    if part.switch and len(words) == 1 and _PRESENT.fullmatch(words[0].stem):
        return Reading(part.switch)
    if not words or not _NOTHING.fullmatch(words[0].stem) or not isinstance(part.off, dict):
        return None
    return Reading(part.off) if len(words) == 1 or names(words[1:], part)[0] else None


def _settled(parsed: list[Element], part: Part, config: MeZOConfig) -> tuple[Reading, ...]:
    """The settings of all elements together: one reading, or one for each number of a list."""
    settings: Settings = {}
    for element in parsed:
        if element.sets:
            meanings = element.meanings
            if any(m.settings != meanings[0].settings for m in meanings):
                titles = ", ".join(m.part.title for m in meanings)
                raise Refused(f"'{element.text}' may be of several parts: {titles}")
            _merge(settings, meanings[0].settings or {}, element.text)
    chosen = [(e, _setting_of(e, part, settings)) for e in parsed if e.values]
    lists = [e for e, _ in chosen if len(e.values) > 1]
    if len(lists) > 1:
        raise Refused(f"'{lists[0].text}' and '{lists[1].text}' are two lists: name one, or write set:")
    readings = []
    for place in range(len(lists[0].values) if lists else 1):
        found = dict(settings)
        for element, number in chosen:
            value = element.values[place if len(element.values) > 1 else 0]
            _merge(found, {number.setting: _number(value, number, element.text)}, element.text)
            # the settings without which it has no effect, where neither the words nor the baseline have them
            needed = {
                need: found[need] if found.get(need) in allowed else allowed[0]
                for need, allowed in number.needs.items()
                if need in found or getattr(config, need) not in allowed
            }
            _merge(found, needed, element.text)
        _check(found, parsed, part)
        readings.append(Reading(found))
    return tuple(readings)


def _setting_of(element: Element, part: Part, settings: Settings) -> NumberSetting:
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


def _merge(settings: Settings, more: Settings, text: str) -> None:
    for name, value in more.items():
        if name in settings and settings[name] != value:
            raise Refused(f"'{text}' sets {name} to {value}, other words of the variant to {settings[name]}")
        settings[name] = value


def _check(settings: Settings, parsed: list[Element], part: Part) -> None:
    """Raises Refused for names without a value, and for values that do not set the study's part."""
    for element in parsed:
        valued = [
            m.number.setting in settings if m.number else m.part is part or settings.keys() & m.part.settings
            for m in element.meanings
        ]
        if valued and not element.sets and not any(valued):
            raise Refused(f"'{element.text}' is not understood")
    if not settings:
        raise Refused("it says no value")
    if not part.settable & settings.keys():
        raise Refused(f"it sets {', '.join(settings)} and says no value of the {part.title}")
    if {"batch_size", "gradient_accumulation"} <= settings.keys():
        raise Refused("it does not say whether the batch is one microbatch or the sum of all: write set:")


def _elements(words: tuple[Token, ...], part: Part) -> list[Element]:
    """The elements of a replacement in a study of `part`. Raises Refused with the words that are left over."""
    found: list[Element] = []
    left: list[int] = []
    i = 0
    while i < len(words):
        element, length = _element(words, i, part)
        if element is not None:
            found.append(element)
        elif words[i].text not in SMALL or (left and left[-1] == i - 1 and words[i].text in ")]}"):
            left.append(i)
        i += length
    if left:
        raise Refused(f"'{_shown(words[left[0] : left[-1] + 1])}' is not understood")
    return found


def _element(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element | None, int]:
    """The element that begins at word `i`, None without one; and its length."""
    length, meanings = longest(
        words, i, lambda m: m.kind != "present" and (m.part is part or m.kind not in ("own", "unit"))
    )
    values = values_of(meanings, part)
    found = _numbers(words, i, part) or _symbol(words, i)
    if found and not (values and length > found[1]):  # "1-bit sign" is no number
        return found
    text = _shown(words[i : i + length])
    if values:
        return Element(text, values, sets=True), length
    named = tuple(m for m in meanings if m.kind in _IN_ANY_STUDY)
    if reason := next((m.part.reason for m in named if not m.part.settings), ""):
        raise Refused(f"'{text}': {reason}")
    return (Element(text, named), length) if named else (None, 1)


def _symbol(words: tuple[Token, ...], i: int) -> tuple[Element, int] | None:
    """ "n = 4", "rank {1, 4}", "learning rate 1e-5"."""
    for length, phrase in spans(words, i):
        meanings, j = lexicon().get(phrase, ()), i + length
        settings, named = _settings(meanings), _settings(meanings, _IN_ANY_STUDY)
        units = _settings(meanings, ("unit",))
        while j < min(len(words), i + length + 3) and words[j].text in _LINKS:
            j += 1
        if not settings or (j == i + length and units and set(named) <= set(units)):
            continue  # "step 1000" is one of the steps
        values, end = _list(words, j)
        if not values:
            continue
        unit, _ = _unit(words, end, settings)
        if not unit and len(values) > 1 and _unit(words, end)[0]:  # "n = 4 and 8 steps": 8 is of the steps
            values, end = values[:1], j + 1
        text = _shown(words[i : end + unit])
        return Element(text, values=values, settings=settings, named=named), end + unit - i
    return None


def _numbers(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element, int] | None:
    """ "4", "2, 4 and 8 samples", "500 warmup steps"."""
    values, end = _list(words, i)
    if not values:
        return None
    length, settings = _unit(words, end, kinds=("unit",))
    after, named = end + length, ()
    # in "4 n = 8" the symbol belongs to the number behind it
    if not length or (after < len(words) and (words[after].text in "=:∈" or words[after].value is not None)):
        after, settings = end, _bare(part)
        length, _ = _unit(words, end, kinds=_IN_ANY_STUDY)
        if length and words[end + length - 1].text != words[end + length - 1].stem:
            after, settings = end + length, ()  # "5 seeds" is how many, and no seed
    else:
        named = _settings(lexicon().get(stems(words[end:after]), ()), ("symbol",))
    return Element(_shown(words[i:after]), values=values, settings=settings, named=named), after - i


def _list(words: tuple[Token, ...], i: int) -> tuple[tuple[float, ...], int]:
    """The numbers of a list that begins at word `i`, and where it ends."""
    found: list[float] = []
    end = place = i
    while place < len(words) and (value := words[place].value) is not None:
        found.append(value)
        end = place = place + 1
        while place < min(len(words), end + 2) and words[place].text in (",", "and", "or"):
            place += 1
        if place == end:
            break
    return tuple(found), end


def _unit(
    words: tuple[Token, ...],
    i: int,
    wanted: tuple[NumberSetting, ...] = (),
    kinds: tuple[str, ...] = _AROUND_NUMBERS,
) -> tuple[int, tuple[NumberSetting, ...]]:
    """The length of the longest unit or name at word `i`, and its settings: of the wanted ones if there are any."""
    length, found = longest(
        words, i, lambda m: m.number is not None and m.kind in kinds and (not wanted or m.number in wanted)
    )
    return length, _settings(found)


def _settings(
    meanings: tuple[Meaning, ...], kinds: tuple[str, ...] = _AROUND_NUMBERS
) -> tuple[NumberSetting, ...]:
    return tuple(dict.fromkeys(m.number for m in meanings if m.number and m.kind in kinds))


def _bare(part: Part) -> tuple[NumberSetting, ...]:
    """The setting that a number alone stands for in a study of the part."""
    return tuple(number for number in part.numbers if number.bare)[:1]


def _shown(words: tuple[Token, ...]) -> str:
    text = " ".join(word.text for word in words)
    return re.sub(r" (?=[),:\]}])|(?<=[(\[{]) ", "", text)
