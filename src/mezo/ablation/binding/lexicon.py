"""Every phrase of parts.yaml with its meanings, and the parts that a text names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from itertools import product
from typing import Literal

from mezo.ablation.binding.part import NumberSetting, Part, Settings, part_with, parts
from mezo.ablation.binding.text import folded
from mezo.ablation.binding.tokens import Token, tokens
from mezo.config import MeZOConfig, choices_of

LONGEST = 14  # words of a phrase


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


def longest(
    words: tuple[Token, ...], i: int, part: Part, *, of_any: bool = False
) -> tuple[int, tuple[Meaning, ...]]:
    """The length and the meanings of the longest phrase at word `i`: of the part, or of any part."""
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        meanings = lexicon().get(stems(words[i : i + length]), ())
        if of_any:
            mine = ("own", "unit")  # of the part alone
            found = tuple(
                m for m in meanings if m.kind != "present" and (m.part is part or m.kind not in mine)
            )
        else:
            found = tuple(m for m in meanings if m.part is part)
        if found:
            return length, found
    return 0, ()


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
