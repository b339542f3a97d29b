"""Every phrase of parts.yaml with its meanings, and the part that a study's words name."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from itertools import product
from typing import Literal

from mezo.ablation.binding.part import NumberSetting, Part, Refused, Settings, part_with, parts
from mezo.ablation.binding.text import Token, folded, tokens
from mezo.config import MeZOConfig, choices_of

_LONGEST = 14  # words of a phrase
# Words that are part of no phrase and change no meaning.
SMALL = frozenset(["a", "an", "the", "with", "and", "use", "using", "at", "of", "as", *"()[]{},:="])


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase may stand for."""

    kind: Literal["name", "present", "value", "own", "symbol", "unit"]
    part: Part
    settings: Settings | None = field(default=None, hash=False)
    number: NumberSetting | None = None


@cache
def lexicon() -> dict[tuple[str, ...], tuple[Meaning, ...]]:
    """Every phrase, as stems, with its meanings."""
    found: dict[tuple[str, ...], list[Meaning]] = {}
    for part in parts():
        for phrase, meaning in _phrases(part):
            for spelling in expanded(phrase):
                found.setdefault(spelling, []).append(meaning)
    return {phrase: tuple(meanings) for phrase, meanings in found.items()}


def expanded(phrase: str) -> set[tuple[str, ...]]:
    """The spellings of a phrase: `a|b` is a choice of words, `c?` a word that may be missing."""
    options = [
        ["", *word[:-1].split("|")] if word.endswith("?") else word.split("|") for word in phrase.split()
    ]
    spellings = (" ".join(filter(None, words)) for words in product(*options))
    return {stems(tokens(spelling)) for spelling in spellings}


def stems(words: tuple[Token, ...]) -> tuple[str, ...]:
    return tuple(word.stem for word in words)


def spans(words: tuple[Token, ...], i: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The length and the stems of what begins at word `i`, the longest first."""
    for length in range(min(_LONGEST, len(words) - i), 0, -1):
        yield length, stems(words[i : i + length])


def longest(
    words: tuple[Token, ...], i: int, fits: Callable[[Meaning], bool]
) -> tuple[int, tuple[Meaning, ...]]:
    """The length of the longest phrase at word `i` that has fitting meanings, and these; 0 without one."""
    for length, phrase in spans(words, i):
        if found := tuple(meaning for meaning in lexicon().get(phrase, ()) if fits(meaning)):
            return length, found
    return 0, ()


def values_of(meanings: tuple[Meaning, ...], part: Part) -> tuple[Meaning, ...]:
    """The meanings that set something: those of the part before those of others."""
    mine = tuple(m for m in meanings if m.part is part and m.kind in ("own", "value"))
    return mine or tuple(m for m in meanings if m.kind == "value")


def part_of(text: str) -> Part | None:
    """The part that a study's `ablated_part` names, if it says nothing else; None otherwise."""
    if text.strip() in MeZOConfig.model_fields:
        return part_with(text.strip())
    words = _unbracketed(text)
    scores = {part: count for part in parts() if (count := names(words, part)[0])}
    return max(scores, key=lambda part: scores[part]) if scores else None


def settings_in_name(text: str, part: Part) -> Settings:
    """The settings that a part's name states: "stochastic rounding", "momentum in the update rule"."""
    found: Settings = {}
    for said in names(_unbracketed(text), part)[1]:
        for name, value in (said.settings or {}).items():
            if found.setdefault(name, value) != value:
                raise Refused(f"{text!r:.200} says two values of {name}")
    return found


def names(words: tuple[Token, ...], part: Part) -> tuple[int, list[Meaning]]:
    """How many words of a text name the part, 0 if others are left over; and the values among them.

    Numbers are its present value.
    """
    count, said, i = 0, list[Meaning](), 0
    while i < len(words):
        length, meanings = longest(words, i, lambda meaning: meaning.part is part)
        around = next((length for length, phrase in spans(words, i) if phrase in _around()), 0)
        if length and length >= around:
            count += length if any(m.kind != "unit" for m in meanings) else 0
            said += values_of(meanings, part)[:1]
            i += length
        elif around or words[i].value is not None or words[i].text in SMALL | {"-", "/"}:
            i += max(around, 1)
        else:
            return 0, said
    return count, said


@cache
def _around() -> frozenset[tuple[str, ...]]:
    """Phrases around a part's name that do not change its meaning."""
    phrases = (
        "choice|value|effect|type|kind|use|usage|selection|setting of the?",
        "used? in|for|of|within|during the? n? spsa|mezo|training|tuning|method|paper",
        "used? in|for|of|within|during fine tuning",
        "used? in|for|of|within|during the? n? spsa gradient? estimation|estimator",
        "used? in|for|of|within the? mezo? zo sgd|optimization|estimation",
        "used? in|for|within mezo fine tuning",
        "of|in the? update rule",
        "with mezo",
        "default|baseline|current|standard",
        "hyperparameter",
    )
    return frozenset(spelling for phrase in phrases for spelling in expanded(phrase))


def _unbracketed(text: str) -> tuple[Token, ...]:
    return tuple(token for token in tokens(text) if token.text not in "()[]{}")


def part_named(text: str) -> Part | None:
    """The part of a setting's name or of one of a part's names, as the key of a mapping has it."""
    if text in MeZOConfig.model_fields:
        return part_with(text)
    meanings = lexicon().get(stems(tokens(text)), ())
    return next((m.part for m in meanings if m.kind in ("name", "symbol")), None)


def ranked(text: str) -> list[tuple[float, Part]]:
    """The parts whose names occur in a text, by the share of its words that they cover, the largest first."""
    words, scores = stems(tokens(text)), dict[Part, float]()
    for phrase, meanings in lexicon().items():
        if any(words[i : i + len(phrase)] == phrase for i in range(len(words) - len(phrase) + 1)):
            for meaning in meanings:
                if meaning.kind != "unit" and len("".join(phrase)) > 2:
                    scores[meaning.part] = max(scores.get(meaning.part, 0), len(phrase) / len(words))
    return sorted(((score, part) for part, score in scores.items()), key=lambda pair: -pair[0])


def nearest(text: str, count: int = 3) -> tuple[str, ...]:
    """The titles of the parts nearest to a text: by their names, else by their letters."""
    if by_name := [part.title for _, part in ranked(text)[:count] if not part.reason]:
        return tuple(by_name)
    likeness = {p.title: SequenceMatcher(None, folded(text), folded(p.title)).ratio() for p in parts()}
    return tuple(sorted(likeness, key=lambda title: -likeness[title])[:count])


def _phrases(part: Part) -> Iterator[tuple[str, Meaning]]:
    named = Meaning("name", part, number=next((number for number in part.numbers[:1] if number.bare), None))
    for name in (re.sub("[()]", " ", part.title), *part.names):
        yield name, named
    yield from ((name, Meaning("present", part)) for name in part.present)
    for number in part.numbers:
        symbol = Meaning("symbol", part, number=number)
        # "warmup steps" in prose may be of any setting
        if number.setting in part.settings and number.setting != "warmup_steps":
            yield number.setting, symbol
        yield from ((phrase, symbol) for phrase in number.symbols)
        yield from ((phrase, Meaning("unit", part, number=number)) for phrase in number.units)
    said = {phrase for phrase, _ in part.own}
    for name in part.settings:
        if "_" in name and all(name != number.setting for number in part.numbers):
            yield name, Meaning("name", part)
        yield from (
            (value, Meaning("own", part, {name: value})) for value in choices_of(name) if value not in said
        )
    yield from ((phrase, Meaning("value", part, settings)) for phrase, settings in part.values)
    yield from ((phrase, Meaning("own", part, settings)) for phrase, settings in part.own)
