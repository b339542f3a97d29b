"""The table of parts: what of a method can be ablated, its names, and the phrases that its settings go by.

Phrases are exact. In the table `a|b` is a choice of words and `c?` a word that may be left out; case, hyphens and a
plural's s do not count.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache, cached_property
from itertools import product
from typing import Any, Literal, get_args, get_origin

from mezo.ablation.binding.tokens import stem, tokens
from mezo.ablation.binding.text import folded
from mezo.config import MeZOConfig

Settings = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """Settings that a replacement's words stand for, and what should be known of how they were read."""

    settings: Settings = field(hash=False)
    note: str = ""


class Refused(Exception):
    """The words stand for no setting; str() says why."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """A setting that is a number, and the words around the number.

    symbols: stand before it, in any study ("n = 4"), as its part's names do. units: stand behind it ("8 samples"), in
    a study of this setting or beside its `needs`; those that are symbols, too, in any study. needs: settings without which the number has no effect,
    with the values that do; in a study of this setting the first is set, elsewhere they have to be said.
    """

    setting: str
    symbols: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    whole: bool = False
    low: float = 0.0
    high: float = 1e9
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    implied: bool = False  # whether the symbols name the needs as well: "momentum 0.9"
    bare: bool = True  # whether a number alone is meant, in a study of this setting
    scale: Literal["", "share of steps", "percentile"] = ""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the method. `names` name it; `values` set it in any study, `own` in a study of this part alone.

    present: names by what it is before the change ("constant learning rate schedule"), which no replacement may hold.

    off: the settings of its removal, or why it has no such settings. switch: on and off are all its values, and its
    addition says enough. reason: why no setting stands for it.
    """

    title: str
    fields: tuple[str, ...]
    names: tuple[str, ...]
    takes: str = ""
    values: Mapping[str, Settings] = field(default_factory=dict)
    own: Mapping[str, Settings] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    off: Settings | str = "it has no value that stands for its absence"
    switch: Settings | None = None
    reason: str = ""
    reader: Callable[[Any, MeZOConfig], Reading | None] | None = field(default=None, repr=False)

    @cached_property
    def settable(self) -> frozenset[str]:
        """The settings that a value of this part may be."""
        found = [*self.values.values(), *self.own.values(), {q.setting: 0 for q in self.quantities}]
        return frozenset(self.fields) | {name for each in found for name in each}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase may stand for."""

    kind: Literal["name", "present", "value", "own", "symbol", "unit"]
    part: Part
    settings: Settings | None = field(default=None, hash=False)
    quantity: Quantity | None = None


@cache
def parts() -> tuple[Part, ...]:
    """Every part; of those that a text names equally, the earlier one is meant."""
    from mezo.ablation.binding.parts_budget import BUDGET
    from mezo.ablation.binding.parts_method import METHOD
    from mezo.ablation.binding.parts_model import MODEL
    from mezo.ablation.binding.parts_perturbation import PERTURBATION
    from mezo.ablation.binding.unsupported import SHARED
    from mezo.ablation.binding.parts_training import TRAINING

    return (*METHOD, *PERTURBATION, *TRAINING, *BUDGET, *MODEL, *SHARED)


@cache
def lexicon() -> dict[tuple[str, ...], tuple[Meaning, ...]]:
    """Every phrase of the table, as stems, with its meanings."""
    found: dict[tuple[str, ...], list[Meaning]] = {}
    for part in parts():
        for phrase, meaning in _phrases(part):
            for spelling in expanded(phrase):
                found.setdefault(spelling, []).append(meaning)
    return {phrase: tuple(meanings) for phrase, meanings in found.items()}


def expanded(phrase: str) -> set[tuple[str, ...]]:
    """The spellings of a phrase of the table."""
    choices = [
        ["", *word[:-1].split("|")] if word.endswith("?") else word.split("|") for word in phrase.split()
    ]
    spellings = (" ".join(filter(None, words)) for words in product(*choices))
    return {tuple(token.stem for token in tokens(spelling)) for spelling in spellings}


def part_named(text: str) -> Part | None:
    """The part that a setting's name or one of a part's names is, as the key of a mapping."""
    if text in MeZOConfig.model_fields:
        return part_with(text)
    words = tuple(stem(word) for word in folded(text).split())
    return next((m.part for m in lexicon().get(words, ()) if m.kind in ("name", "symbol")), None)


def part_with(setting: str) -> Part | None:
    """The part of a setting of MeZOConfig."""
    return next((part for part in parts() if setting in part.fields), None)


def ranked(text: str) -> list[tuple[float, Part]]:
    """The parts whose names stand in a text, by the share of its words that they cover, the largest first."""
    words, scores = [token.stem for token in tokens(text)], dict[Part, float]()
    for phrase, meanings in lexicon().items():
        if any(tuple(words[i : i + len(phrase)]) == phrase for i in range(len(words) - len(phrase) + 1)):
            for meaning in meanings:
                if meaning.kind != "unit" and len("".join(phrase)) > 2:
                    scores[meaning.part] = max(scores.get(meaning.part, 0), len(phrase) / len(words))
    return sorted(((score, part) for part, score in scores.items()), key=lambda pair: -pair[0])


def nearest(text: str, count: int = 3) -> tuple[str, ...]:
    """The titles of the parts that come nearest to a text: by their names, else by their letters."""
    if by_name := [part.title for _, part in ranked(text)[:count] if not part.reason]:
        return tuple(by_name)
    likeness = {p.title: SequenceMatcher(None, folded(text), folded(p.title)).ratio() for p in parts()}
    return tuple(sorted(likeness, key=lambda title: -likeness[title])[:count])


def _phrases(part: Part) -> Iterator[tuple[str, Meaning]]:
    first = part.quantities[0] if part.quantities else None
    named = Meaning("name", part, quantity=first)
    yield re.sub("[()]", " ", part.title), named
    yield from ((name, named) for name in part.names)
    yield from ((name, Meaning("present", part)) for name in part.present)
    for quantity in part.quantities:
        own = Meaning("symbol", part, quantity=quantity)
        if quantity.scale != "share of steps":  # "warmup steps" in prose may be of any setting
            yield quantity.setting, own
        yield from ((symbol, own) for symbol in quantity.symbols)
        yield from ((unit, Meaning("unit", part, quantity=quantity)) for unit in quantity.units)
    for name in part.fields:
        if "_" in name and all(name != quantity.setting for quantity in part.quantities):
            yield name, Meaning("name", part)
        for choice in _choices(name) - part.own.keys():
            yield choice, Meaning("own", part, {name: choice})
    yield from ((phrase, Meaning("value", part, settings)) for phrase, settings in part.values.items())
    yield from ((phrase, Meaning("own", part, settings)) for phrase, settings in part.own.items())


def _choices(name: str) -> set[str]:
    """The values of a setting that is a choice."""
    from mezo.estimators import ESTIMATORS
    from mezo.objectives import OBJECTIVES
    from mezo.optimizers import OPTIMIZERS

    tables = {"estimator": ESTIMATORS, "optimizer": OPTIMIZERS, "objective": OBJECTIVES}
    if name in tables:
        return set(tables[name])
    annotation = MeZOConfig.model_fields[name].annotation
    found = [annotation, *get_args(annotation)]
    return {c for a in found if get_origin(a) is Literal for c in get_args(a)}
