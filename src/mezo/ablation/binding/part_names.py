"""The part of the method that a study's words name, and nothing else."""

from mezo.ablation.binding.elements import LONGEST, SMALL, longest, values_of
from mezo.ablation.binding.part import Meaning, Part, Refused, Settings, expanded, part_with, parts
from mezo.ablation.binding.tokens import Token, tokens
from mezo.config import MeZOConfig

# What stands around a part's name and does not change what it means.
_AROUND = frozenset(
    spelling
    for phrase in (
        "choice|value|effect|type|kind|use|usage|selection|setting of the?",
        "used? in|for|of|within|during the? n? spsa|mezo",
        "used? in|for|of|within|during the? training|tuning|method|paper",
        "used? in|for|of|within|during fine tuning",
        "used? in|for|of|within|during the? n? spsa gradient? estimation|estimator",
        "used? in|for|of|within the? mezo? zo sgd|optimization|estimation",
        "used? in|for|within mezo fine tuning",
        "of|in the? update rule",
        "with mezo",
        "default|baseline|current|standard",
        "hyperparameter",
    )
    for spelling in expanded(phrase)
)
_BRACKETS = frozenset("()[]{}")


def part_of(text: str) -> Part | None:
    """The part that a study's `ablated_part` names and says nothing else of; None if there is no such part."""
    if text.strip() in MeZOConfig.model_fields:
        return part_with(text.strip())
    words = _unbracketed(text)
    scores = {part: count for part in parts() if (count := names(words, part))}
    return max(scores, key=lambda part: scores[part]) if scores else None


def said_by_name(text: str, part: Part) -> Settings:
    """The settings that the name of a part says: "stochastic rounding", "momentum in the update rule"."""
    said: list[Meaning] = []
    names(_unbracketed(text), part, said)
    found: Settings = {}
    for meaning in said:
        for name, value in (meaning.settings or {}).items():
            if found.setdefault(name, value) != value:
                raise Refused(f"{text!r:.200} says two values of {name}")
    return found


def _unbracketed(text: str) -> tuple[Token, ...]:
    return tuple(token for token in tokens(text) if token.text not in _BRACKETS)


def names(words: tuple[Token, ...], part: Part, said: list[Meaning] | None = None) -> int:
    """How many words of a text name the part; 0 if others are left over. Numbers are its present value.

    said: filled with the values among them.
    """
    count, i = 0, 0
    while i < len(words):
        length, meanings = longest(words, i, part)
        around = _around(words, i)
        if length and length >= around:
            count += length if any(m.kind != "unit" for m in meanings) else 0
            if said is not None:
                said.extend(values_of(meanings, part)[:1])
            i += length
        elif around or words[i].value is not None or words[i].text in SMALL | {"-", "/"}:
            i += max(around, 1)
        else:
            return 0
    return count


def _around(words: tuple[Token, ...], i: int) -> int:
    lengths = range(min(LONGEST, len(words) - i), 0, -1)
    return next((n for n in lengths if tuple(word.stem for word in words[i : i + n]) in _AROUND), 0)
