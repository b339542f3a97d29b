"""The part of the method that a study's words name, and nothing else."""

from mezo.ablation.binding.elements import SMALL, values_of
from mezo.ablation.binding.lexicon import LONGEST, Meaning, expanded, longest, stems
from mezo.ablation.binding.part import Part, Refused, Settings, part_with, parts
from mezo.ablation.binding.tokens import Token, tokens
from mezo.config import MeZOConfig

# Phrases around a part's name that do not change its meaning.
_AROUND = frozenset(
    spelling
    for phrase in (
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
    for spelling in expanded(phrase)
)


def part_of(text: str) -> Part | None:
    """The part that a study's `ablated_part` names, if it says nothing else; None otherwise."""
    if text.strip() in MeZOConfig.model_fields:
        return part_with(text.strip())
    words = _unbracketed(text)
    scores = {part: count for part in parts() if (count := names(words, part))}
    return max(scores, key=lambda part: scores[part]) if scores else None


def settings_in_name(text: str, part: Part) -> Settings:
    """The settings that a part's name states: "stochastic rounding", "momentum in the update rule"."""
    said: list[Meaning] = []
    names(_unbracketed(text), part, said)
    found: Settings = {}
    for meaning in said:
        for name, value in (meaning.settings or {}).items():
            if found.setdefault(name, value) != value:
                raise Refused(f"{text!r:.200} says two values of {name}")
    return found


def names(words: tuple[Token, ...], part: Part, said: list[Meaning] | None = None) -> int:
    """How many words of a text name the part; 0 if other words are left over. Numbers are its present value.

    said: filled with the values among them.
    """
    count, i = 0, 0
    while i < len(words):
        length, meanings = longest(words, i, part)
        around = next(
            (n for n in range(min(LONGEST, len(words) - i), 0, -1) if stems(words[i : i + n]) in _AROUND), 0
        )
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


def _unbracketed(text: str) -> tuple[Token, ...]:
    return tuple(token for token in tokens(text) if token.text not in "()[]{}")
