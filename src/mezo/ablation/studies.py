"""One study, resolved: its parts by their names, its replacements by the readers of those parts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mezo.ablation import parts as table
from mezo.ablation.binding import Unbound, Variant
from mezo.ablation.cautions import caution
from mezo.ablation.checking import completed, problem_of
from mezo.ablation.exact import exact
from mezo.ablation.fields import is_nothing
from mezo.ablation.impossible import check_possible
from mezo.ablation.parts import NOTHING, STRONG, Part
from mezo.ablation.plan import Study
from mezo.ablation.several import apart
from mezo.ablation.spelling import corrected
from mezo.ablation.values import Reading, Refused
from mezo.ablation.words import folded
from mezo.config import MeZOConfig

Result = Variant | Unbound
_NONE = re.compile(r"(none|nothing|off|no|without|remov\w*|disabl\w*|drop\w*)\b")
_PLAUSIBLE = 0.3  # of the best score: a part named less strongly is not what the study is about


@dataclass(frozen=True)
class _Item:
    """One replacement."""

    label: str
    value: Any
    given: dict[str, Any] | None = None  # settings that the plan states itself


def bind_study(study: Study, config: MeZOConfig) -> list[Result]:
    """The variants of a study and what of it cannot be bound, in the plan's order."""
    candidates = table.ranked(study.ablated_part, study.name)
    if (candidates[0][0] if candidates else 0.0) < STRONG and (
        spelt := table.ranked(corrected(study.ablated_part), study.name)
    ):
        candidates = spelt
    best = candidates[0][0] if candidates else 0.0
    likely = [part for score, part in candidates if score >= _PLAUSIBLE * best]
    results: list[Result] = []
    taken: set[str] = set()
    for item in _items(study):
        for result in _bind_item(study, item, likely, config):
            if isinstance(result, Variant):
                result = _told_apart(result, taken)
            results.append(result)
    return results


def _items(study: Study) -> list[_Item]:
    """What is put in the part's place: each entry of a list; each pair, or all pairs, of a mapping."""
    values: list[tuple[str, Any]]
    said = study.replacement if isinstance(study.replacement, list) else []
    if said and all(isinstance(value, str) and is_nothing(value) for value in said):
        values = []  # a list of "None" alone
    elif isinstance(study.replacement, list):
        values = [(_shown(value), _changed_to(value)) for value in study.replacement]
    elif isinstance(study.replacement, dict):
        values = list(_of_mapping(study.replacement))
    else:
        values = []
    values = values or [({"REMOVE": "removed", "ADD": "added"}.get(study.action, study.name), ...)]
    if isinstance(study.set, dict) and len(values) == 1:
        return [_Item(values[0][0], values[0][1], study.set)]
    if isinstance(study.set, list) and study.set:
        labels = (
            [label for label, _ in values] if len(values) == len(study.set) else map(_settings, study.set)
        )
        return [_Item(label, None, given) for label, given in zip(labels, study.set, strict=True)]
    return [_Item(label, value) for label, value in values]


def _changed_to(value: Any) -> Any:
    """What stands behind the arrow of "16 → 64"."""
    parts = re.split(r"\s*(?:→|⇒|[-=]>)\s*", value) if isinstance(value, str) else []
    return parts[1] if len(parts) == 2 and all(parts) else value


def _of_mapping(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A mapping whose keys name settings is one variant, or one for each value of a list in it.

    Any other is a choice of its entries, each told by its key and its value.
    """
    if found and all(_part_named(key) for key in found):
        lists = {key: value for key, value in found.items() if isinstance(value, list)}
        single = {key: value for key, value in found.items() if key not in lists}
        if not lists:
            yield _settings(found), found
        for key, values in lists.items():
            for value in values:
                pair = {**single, key: value}
                yield _settings({key: value}), pair
        return
    for key, value in found.items():
        if isinstance(value, list):
            yield from ((f"{key}: {_shown(inner)}", inner) for inner in value)
        elif isinstance(value, str):
            yield f"{key}: {value}", f"{key}: {value}"
        else:
            yield f"{key}: {_shown(value)}", key if value is None else value


def _bind_item(study: Study, item: _Item, likely: list[Part], config: MeZOConfig) -> Iterator[Result]:
    try:
        part, readings = _readings(study, item, likely, config)
    except Refused as refusal:
        text = item.label if item.value is not ... else study.ablated_part
        yield Unbound(study.name, text, str(refusal), _nearest(study, likely))
        return
    for number, reading in enumerate(readings):
        settings = {**reading.settings, **(study.set if isinstance(study.set, dict) else {})}
        settings = completed(settings, config)
        try:
            problem, built = problem_of(settings, config)
        except Refused as refusal:
            problem, built = str(refusal), None
        if built is None:
            yield Unbound(study.name, item.label, problem, (part.title,) if part else ())
            continue
        label = (
            item.label
            if len(readings) == 1
            else f"{item.label} [{number + 1}: {_settings(reading.settings)}]"
        )
        title = part.title if part else ", ".join(settings)
        note = "; ".join(filter(None, (reading.note, caution(settings, config))))
        yield Variant(study.name, label, settings, title, note, built == config)


def _readings(
    study: Study, item: _Item, likely: list[Part], config: MeZOConfig
) -> tuple[Part | None, tuple[Reading, ...]]:
    """What the item sets, and the part it is of. Raises Refused with the reason if nothing can be set."""
    if item.given is not None:
        return None, (Reading(item.given),)
    if item.value is ...:
        return _without_words(study, likely, config)
    if isinstance(item.value, dict):
        return None, (_from_mapping(item.value, config),)
    check_possible(item.value)
    reasons: list[str] = []
    for part in _order(item.value, likely):
        try:
            readings = apart(part, item.value, config, _read) or _read(part, item.value, config)
            if readings is not None and (part in likely[:1] or not _by_chance(part, readings, item.value)):
                return part, _with_others(part, readings, item.value, config)
        except Refused as refusal:
            if (part.fields and part.takes != NOTHING) or part in likely[:1]:
                reasons.append(str(refusal))
    if reasons:
        raise Refused(reasons[0])
    if study.action == "REMOVE" and likely and isinstance(likely[0].off, dict):
        return likely[0], (Reading(likely[0].off, "removed; the plan's words on it are no value of it"),)
    if likely:
        raise Refused(
            f"{item.label!r:.200} is no value of the {likely[0].title}, which takes {likely[0].takes}"
        )
    raise Refused("no setting of this package goes by such a name")


def _order(value: Any, likely: list[Part]) -> list[Part]:
    """The parts to ask, first to last: that of a letter that is set ("n = 4"); the study's, but before a
    number of it a part that the replacement itself names ("batch size 32" among learning rates).
    """
    if not isinstance(value, str):
        return likely
    lettered = [p for p in table.parts() if p.symbols and re.match(rf"(?i)\W*(?:{p.symbols})\s*[=:∈]", value)]
    named = [part for score, part in table.ranked(value) if score >= STRONG]
    elsewhere = bool(named and likely and likely[0] not in named and likely[0].symbols)
    order = [*lettered, *(named[:2] if elsewhere else ()), *likely, *named]
    return list(dict.fromkeys(order))


def _read(part: Part, value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    settings = exact(part.fields, value)
    found = (Reading(settings),) if settings is not None else part.read(value, config)
    if found is None and isinstance(part.off, dict) and (value is None or _NONE.match(folded(str(value)))):
        return (Reading(part.off),)
    return found


def _by_chance(part: Part, readings: tuple[Reading, ...], value: Any) -> bool:
    """Whether a number was read out of words that do not speak of the part: "the last 4 layers" as epsilon."""
    numeric = any(
        isinstance(v, int | float) and not isinstance(v, bool) for v in readings[0].settings.values()
    )
    text = folded(value) if isinstance(value, str) else ""
    return numeric and re.search(r"[a-z]{3}", text) is not None and part.score(text) == 0


def _without_words(
    study: Study, likely: list[Part], config: MeZOConfig
) -> tuple[Part | None, tuple[Reading, ...]]:
    """Nothing is said of what comes instead: the part is taken away, or put in as its name says."""
    if not likely:
        raise Refused("no setting of this package goes by such a name")
    part = likely[0]
    if study.action == "REMOVE":
        if part.without is not None and (readings := part.without(study.ablated_part, config)):
            return part, readings
        if isinstance(part.off, str):
            raise Refused(part.off)
        return part, (Reading(part.off),)
    for text in (study.ablated_part, study.name):
        readings = part.read(text, config) if study.action == "ADD" else None
        if readings and any(getattr(config, key) != value for key, value in readings[0].settings.items()):
            return part, readings[:1]
    if study.action == "ADD" and isinstance(part.on, dict):
        return part, (Reading(part.on, "the plan does not say more; this is the package's own choice"),)
    raise Refused(
        part.on
        if study.action == "ADD" and isinstance(part.on, str)
        else "the plan does not say by what it is replaced"
    )


def _from_mapping(found: dict[str, Any], config: MeZOConfig) -> Reading:
    """The settings of all pairs together."""
    settings: dict[str, Any] = {}
    notes = []
    for key, value in found.items():
        part = _part_named(key)
        readings: tuple[Reading, ...] | None = _read(part, value, config) if part else None
        if part is not None and key in MeZOConfig.model_fields and readings is None:
            readings = (Reading({key: value}),)
        if part is None or not readings:
            takes = f"; the {part.title} takes {part.takes}" if part else ""
            raise Refused(f"{key}: {_shown(value)} is no setting{takes}")
        settings.update(readings[0].settings)
        notes.append(readings[0].note)
    return Reading(settings, "; ".join(filter(None, notes)))


def _with_others(
    part: Part, readings: tuple[Reading, ...], value: Any, config: MeZOConfig
) -> tuple[Reading, ...]:
    """With what else is set in the same words by a letter: "n = 4, epsilon = 1e-2"."""
    reading, *others = readings
    if not isinstance(value, str) or others:
        return readings
    more: dict[str, Any] = {}
    for other in table.parts():
        if other is part or not other.symbols:
            continue
        if re.search(rf"(?i)(?<![\w-])(?:{other.symbols})\s*=", value):
            found = other.read(value, config) or ()
            more.update(found[0].settings if len(found) == 1 else {})
    return (Reading({**more, **reading.settings}, reading.note),)


def _part_named(key: str) -> Part | None:
    if key in MeZOConfig.model_fields:
        return table.part_of(key)
    found = table.ranked(key)
    if found and found[0][0] >= STRONG:
        return found[0][1]
    text = folded(key)
    return next((p for p in table.parts() if p.symbols and re.fullmatch(p.symbols, text)), None)


def _nearest(study: Study, likely: list[Part]) -> tuple[str, ...]:
    return tuple(part.title for part in likely[:3]) or table.nearest(study.ablated_part)


def _told_apart(variant: Variant, taken: set[str]) -> Variant:
    """The variant with a label that no other of its study has, nor the baseline."""
    label, number = variant.label, 1
    while label in taken or label == "baseline":
        number += 1
        label = f"{variant.label} ({number})"
    taken.add(label)
    return variant if label == variant.label else replace(variant, label=label)


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
