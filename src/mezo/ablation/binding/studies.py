"""One study, resolved: its part by its name, its replacements by what they say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mezo.ablation.binding.variants import Unbound, Variant
from mezo.ablation.binding.cautions import caution
from mezo.ablation.binding.checks import completed, problem_of
from mezo.ablation.plans.fields import is_nothing
from mezo.ablation.binding.part_names import part_of, said_by_name
from mezo.ablation.binding.part import Part, Reading, Refused, nearest, part_named
from mezo.ablation.plans.plan import Study
from mezo.ablation.binding.replacements import read
from mezo.config import MeZOConfig

_ABSENT = re.compile(r"(?i)\b(?:absence|lack|no|none|not|off|without|disabled?|removed?|un-?normali[sz]ed)\b")
Result = Variant | Unbound
_OPEN = "..."  # in a stub, the value that its reader fills in


@dataclass(frozen=True)
class _Item:
    """One replacement."""

    label: str
    value: Any
    given: dict[str, Any] | None = None  # settings that the plan states itself


def bind_study(study: Study, config: MeZOConfig) -> list[Result]:
    """The variants of a study and what of it cannot be bound, in the plan's order."""
    part = part_of(study.ablated_part)
    results: list[Result] = []
    taken: set[str] = set()
    for item in _items(study):
        for result in _bind_item(study, item, part, config):
            if isinstance(result, Variant):
                result = _told_apart(result, taken)
            results.append(result)
    return results


def stub(study: Study, results: list[Result]) -> str:
    """`set:` for a study of which something is not bound, to be filled in where "..." stands."""
    part = part_of(study.ablated_part)
    open_setting = part.fields[0] if part and part.fields else "SETTING"
    lines = ["set:"]
    for result in results:
        if isinstance(result, Variant):
            pairs = ", ".join(f"{name}: {_plain(value)}" for name, value in result.settings.items())
            lines.append(f"- {{{pairs}}}")
        else:
            lines.append(f"- {{{open_setting}: {_OPEN}}}  # {' '.join(result.text.split())}")
    return "\n".join(lines)


def _items(study: Study) -> list[_Item]:
    """What is put in the part's place: each entry of a list; each pair, or all pairs, of a mapping."""
    values: list[tuple[str, Any]]
    said = study.replacement if isinstance(study.replacement, list) else []
    if said and all(isinstance(value, str) and is_nothing(value) for value in said):
        values = []  # a list of "None" alone
    elif isinstance(study.replacement, list):
        values = [(_shown(value), value) for value in study.replacement]
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
        said = [value for _, value in values] if len(values) == len(study.set) else [...] * len(study.set)
        return [_Item(*each) for each in zip(labels, said, study.set, strict=True)]
    return [_Item(label, value) for label, value in values]


def _of_mapping(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A mapping whose keys name settings is one variant, or one for each value of a list in it.

    Any other is a choice of its entries, each told by its key and its value.
    """
    if found and all(part_named(key) for key in found):
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
            yield from ((text := f"{key}: {_shown(inner)}", text) for inner in value)
        elif value is None:
            yield key, key
        else:
            yield f"{key}: {_shown(value)}", f"{key}: {_shown(value)}"


def _bind_item(study: Study, item: _Item, part: Part | None, config: MeZOConfig) -> Iterator[Result]:
    near = (part.title,) if part else nearest(study.ablated_part)
    try:
        readings = _readings(study, item, part, config)
    except Refused as refusal:
        text = item.label if item.value is not ... else study.ablated_part
        yield Unbound(study.name, text, str(refusal), near)
        return
    for number, reading in enumerate(readings):
        settings = {**reading.settings, **(study.set if isinstance(study.set, dict) else {})}
        settings = completed(settings, config)
        try:
            problem, built = problem_of(settings, config)
        except Refused as refusal:
            problem, built = str(refusal), None
        if built is None:
            yield Unbound(study.name, item.label, problem, near)
            continue
        label = (
            item.label
            if len(readings) == 1
            else f"{item.label} [{number + 1}: {_settings(reading.settings)}]"
        )
        title = part.title if part and item.given is None else ", ".join(settings)
        note = "; ".join(filter(None, (reading.note, caution(settings, config))))
        yield Variant(study.name, label, settings, title, note, built == config)


def _readings(study: Study, item: _Item, part: Part | None, config: MeZOConfig) -> tuple[Reading, ...]:
    """What the item sets. Raises Refused with the reason if nothing can be set."""
    if item.given is not None:
        return (Reading(item.given, _disagreement(item, part, config)),)
    if isinstance(item.value, dict):
        return (_from_mapping(item.value, config),)
    if part is None:
        raise Refused(f"the part {study.ablated_part!r:.200} is not understood")
    if item.value is ...:
        return (_without_words(study, part, config),)
    if _ABSENT.search(study.ablated_part) and (not isinstance(item.value, str) or _ABSENT.match(item.value)):
        raise Refused(f"{item.label!r:.80} of what is not there: say what comes instead")
    return read(item.value, part, config)


def _without_words(study: Study, part: Part, config: MeZOConfig) -> Reading:
    """Nothing is said of what comes instead: the part is taken away, or added where its name says enough."""
    if study.action == "REPLACE":
        raise Refused("the plan does not say by what it is replaced")
    if part.reason:
        raise Refused(part.reason)
    if _ABSENT.search(study.ablated_part):
        raise Refused(f"{study.action} of what is not there: say what comes instead as a replacement")
    said = said_by_name(study.ablated_part, part)
    if study.action == "ADD":
        found = said if any(getattr(config, name) != value for name, value in said.items()) else part.switch
        if not found:
            raise Refused(f"the plan does not say what to add; the {part.title} takes {part.takes}")
        return Reading(found)
    if part.reader is not None and (reading := part.reader(None, config)):
        return reading
    if isinstance(part.off, str):
        raise Refused(part.off)
    if said and said.items() <= part.off.items():
        raise Refused("the plan does not say what comes instead")
    return Reading(part.off)


def _disagreement(item: _Item, part: Part | None, config: MeZOConfig) -> str:
    """Where the words of a variant say something else than the settings that the plan states."""
    given = item.given or {}
    if part is None or item.value in (None, ...):
        return ""
    try:
        (reading,) = read(item.value, part, config)
    except (Refused, ValueError):
        return ""
    differ = [n for n, v in reading.settings.items() if given.get(n, getattr(config, n)) != v]
    return "; ".join(
        f"the words say {n}={_shown(reading.settings[n])}, set: says {_shown(given.get(n, getattr(config, n)))}"
        for n in differ
    )


def _from_mapping(found: dict[str, Any], config: MeZOConfig) -> Reading:
    """The settings of all pairs together."""
    settings: dict[str, Any] = {}
    notes = []
    for key, value in found.items():
        part = part_named(key)
        if part is None:
            raise Refused(f"{key!r:.80} is no setting")
        if key in MeZOConfig.model_fields and not isinstance(value, str | dict):
            readings: tuple[Reading, ...] = (Reading({key: value}),)
        else:
            readings = read(value, part, config)
        if len(readings) != 1:
            raise Refused(f"{key}: {_shown(value)} is more than one value")
        for name, each in readings[0].settings.items():
            if settings.setdefault(name, each) != each:
                raise Refused(f"{key}: {_shown(value)} sets {name} again")
        notes.append(readings[0].note)
    return Reading(settings, "; ".join(filter(None, notes)))


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


def _plain(value: Any) -> str:
    return (
        "null"
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else repr(list(value))
        if isinstance(value, tuple)
        else str(value)
    )
