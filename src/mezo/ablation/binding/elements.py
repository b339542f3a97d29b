"""The elements of a text: its names, its values, its numbers. Words that are part of none are refused by name."""

import re
from dataclasses import dataclass

from mezo.ablation.binding.lexicon import LONGEST, Meaning, lexicon, longest, stems
from mezo.ablation.binding.part import NumberSetting, Part, Refused
from mezo.ablation.binding.tokens import Token

SMALL = frozenset(["a", "an", "the", "with", "and", "use", "using", "at", "of", "as", *"()[]{},:="])
_LINKS = frozenset(["=", ":", "of", "is", "at", "∈", "(", "{", "["])  # between a symbol and its number
_IN_ANY_STUDY = ("name", "symbol")
_AROUND_NUMBERS = (*_IN_ANY_STUDY, "unit")


@dataclass(frozen=True)
class Value:
    """A phrase that sets something."""

    text: str
    meanings: tuple[Meaning, ...]


@dataclass(frozen=True)
class Number:
    """Numbers, and the settings that they may be of."""

    text: str
    values: tuple[float, ...]
    settings: tuple[NumberSetting, ...]
    named: tuple[NumberSetting, ...] = ()  # of these, the ones that the words name in any study


@dataclass(frozen=True)
class Name:
    """A part's name that sets nothing."""

    text: str
    meanings: tuple[Meaning, ...]


Element = Value | Number | Name


def elements(words: tuple[Token, ...], part: Part) -> list[Element]:
    """The elements of a replacement in a study of `part`. Raises Refused with the words that are left over."""
    found: list[Element] = []
    left: list[int] = []
    i = 0
    while i < len(words):
        element, length = _element(words, i, part)
        if element is not None:
            found.append(element)
        elif not length:
            left.append(i)
        i += max(length, 1)
    if left:
        last = left[-1] + 1
        while last < len(words) and words[last].text in ")]}":
            last += 1
        raise Refused(f"'{_shown(words[left[0] : last])}' is not understood")
    return found


def _element(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element | None, int]:
    """The element that begins at word `i`, and its length; length 0: no element and no small word."""
    length, meanings = longest(words, i, part, of_any=True)
    values = values_of(meanings, part)
    found = _numbers(words, i, part) or _symbol(words, i)
    if found and not (values and length > found[1]):  # "1-bit sign" is no number
        return found
    if length:
        text = _shown(words[i : i + length])
        if values:
            return Value(text, values), length
        named = tuple(m for m in meanings if m.kind in _IN_ANY_STUDY)
        if reason := next((m.part.reason for m in named if not m.part.settings), ""):
            raise Refused(f"'{text}': {reason}")
        if named:
            return Name(text, named), length
    return None, int(words[i].text in SMALL)


def _symbol(words: tuple[Token, ...], i: int) -> tuple[Element, int] | None:
    """ "n = 4", "rank {1, 4}", "learning rate 1e-5"."""
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        phrase, j = words[i : i + length], i + length
        settings, named = _settings(phrase), _settings(phrase, _IN_ANY_STUDY)
        while j < min(len(words), i + length + 3) and words[j].text in _LINKS:
            j += 1
        units = _settings(phrase, ("unit",))
        if not settings or (j == i + length and units and set(named) <= set(units)):
            continue  # "step 1000" is one of the steps
        values, end = _list(words, j)
        if not values:
            continue
        unit, _ = _unit(words, end, settings)
        if not unit and len(values) > 1 and _unit(words, end)[0]:  # "n = 4 and 8 steps": 8 is of the steps
            values, end = values[:1], j + 1
        return Number(_shown(words[i : end + unit]), values, settings, named), end + unit - i
    return None


def _numbers(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element, int] | None:
    """ "4", "2, 4 and 8 samples", "500 warmup steps"."""
    values, end = _list(words, i)
    if not values:
        return None
    length, settings = _unit(words, end, kinds=("unit",))
    after = end + length
    # in "4 n = 8" the symbol belongs to the number behind it
    if not length or (after < len(words) and (words[after].text in "=:∈" or words[after].value is not None)):
        length, _ = _unit(words, end, kinds=_IN_ANY_STUDY)
        if length and words[end + length - 1].text != words[end + length - 1].stem:
            after = end + length  # "5 seeds" is how many, and no seed
            return Number(_shown(words[i:after]), values, ()), after - i
        return Number(_shown(words[i:end]), values, bare(part)), end - i
    named = _settings(words[end:after], ("symbol",))
    return Number(_shown(words[i:after]), values, settings, named), after - i


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
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        found = _settings(words[i : i + length], kinds)
        if found := tuple(q for q in found if not wanted or q in wanted):
            return length, found
    return 0, ()


def _settings(
    words: tuple[Token, ...], kinds: tuple[str, ...] = _AROUND_NUMBERS
) -> tuple[NumberSetting, ...]:
    meanings = lexicon().get(stems(words), ())
    return tuple(dict.fromkeys(m.number for m in meanings if m.number and m.kind in kinds))


def values_of(meanings: tuple[Meaning, ...], part: Part) -> tuple[Meaning, ...]:
    """The meanings that set something: those of the part before those of others."""
    mine = tuple(m for m in meanings if m.part is part and m.kind in ("own", "value"))
    return mine or tuple(m for m in meanings if m.kind == "value")


def bare(part: Part) -> tuple[NumberSetting, ...]:
    """The setting that a number alone stands for in a study of the part."""
    return tuple(number for number in part.numbers if number.bare)[:1]


def _shown(words: tuple[Token, ...]) -> str:
    text = " ".join(word.text for word in words)
    return re.sub(r" (?=[),:\]}])|(?<=[(\[{]) ", "", text)
