"""From a plan in prose to variants of the baseline: what each one changes, and what cannot be bound."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from mezo.ablation.binding.case import Bound, Case, Unbound
from mezo.ablation.binding.checks import built_with, caution, completed
from mezo.ablation.binding.lexicon import nearest, part_named, part_of, settings_in_name
from mezo.ablation.binding.literal_values import READERS
from mezo.ablation.binding.metric_names import metric_names
from mezo.ablation.binding.part import Part, Reading, Refused
from mezo.ablation.binding.replacements import read, takes
from mezo.ablation.binding.text import numbers
from mezo.ablation.plans.fields import is_nothing
from mezo.ablation.plans.plan import Plan, Study, unique
from mezo.config import MeZOConfig
from mezo.errors import MezoError

Result = Case | Unbound
_ABSENT = re.compile(r"(?i)\b(?:absence|lack|no|none|not|off|without|disabled?|removed?|un-?normali[sz]ed)\b")


class Disagreement(Refused):
    """The words and the `set` of a variant say different things."""


@dataclass(frozen=True)
class _Item:
    """One replacement."""

    label: str
    value: Any  # ...: the plan names none
    given: dict[str, Any] | None = None  # settings that the plan states in place of the words
    place: int = 0
    alone: bool = False  # whether it is the study's only one


def bind(plan: Plan, config: MeZOConfig) -> Bound:
    """Resolve every study of `plan` against the baseline `config`. Runs and fetches nothing."""
    bound = {study.name: bind_study(study, config) for study in plan.studies}
    results = [result for each in bound.values() for result in each]
    unbound = tuple(r for r in results if isinstance(r, Unbound))
    open_studies = {item.study for item in unbound}
    metrics = {study.name: metric_names(study.metrics) for study in plan.studies}
    return Bound(
        tuple(r for r in results if isinstance(r, Case)),
        unbound,
        {name: names for name, (names, _) in metrics.items()},
        {name: unknown for name, (_, unknown) in metrics.items() if unknown},
        {s.name: _stub(s, bound[s.name]) for s in plan.studies if s.name in open_studies},
    )


def bind_study(study: Study, config: MeZOConfig) -> list[Result]:
    """The variants of a study and what of it cannot be bound, in the plan's order."""
    part = part_of(study.ablated_part)
    near = (part.title,) if part else nearest(study.ablated_part)
    results: list[Result] = []
    taken = {"baseline"}
    try:
        items = _items(study)
    except Disagreement as refusal:
        return [Unbound(study.name, "all of it", str(refusal), near, disagrees=True)]
    for item in items:
        try:
            readings = _readings(study, item, part, config)
        except Refused as refusal:
            text = item.label if item.value is not ... else study.ablated_part
            disagrees = isinstance(refusal, Disagreement)
            results.append(Unbound(study.name, text, str(refusal), near, item.place, disagrees))
            continue
        for number, reading in enumerate(readings, start=1):
            settings = completed(reading.settings, config)
            try:
                built = built_with(settings, config)
            except MezoError as error:
                results.append(Unbound(study.name, item.label, str(error), near, item.place))
                continue
            several = f" [{number}: {shown_settings(reading.settings)}]" if len(readings) > 1 else ""
            title = part.title if part and item.given is None else ", ".join(settings)
            note = "; ".join(filter(None, (reading.note, caution(settings, config))))
            label = unique(f"{item.label}{several}", taken)
            results.append(Case(study.name, label, settings, built, title, note, item.place))
    return results


def _items(study: Study) -> list[_Item]:
    """The replacements: each entry of a list; each pair, or all pairs, of a mapping."""
    found = study.replacement
    if isinstance(found, list) and not all(isinstance(value, str) and is_nothing(value) for value in found):
        values = [(_shown(value), value) for value in found]
    else:
        values = list(_of_mapping(found)) if isinstance(found, dict) else []
    given = study.set if isinstance(study.set, list) else []
    if given and values and len(given) != len(values):
        raise Disagreement(f"there are {len(values)} replacements, and set: has {len(given)} entries")
    if len(given) > 1 and not values:  # the variants are the settings
        labels = ["as the words say" if each is None else shown_settings(each) for each in given]
        return [_Item(label, ..., each, n) for n, (label, each) in enumerate(zip(labels, given, strict=True))]
    values = values or [({"REMOVE": "removed", "ADD": "added"}.get(study.action, study.name), ...)]
    return [
        _Item(label, value, given[place] if given else None, place, len(values) == 1)
        for place, (label, value) in enumerate(values)
    ]


def _of_mapping(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A mapping whose keys name settings is one variant, or one for each value of a list in it.

    Any other mapping is a choice of its entries, each read as "key: value".
    """
    if found and all(part_named(key) for key in found):
        lists = {key: value for key, value in found.items() if isinstance(value, list)}
        single = {key: value for key, value in found.items() if key not in lists}
        if not lists:
            yield shown_settings(found), found
        for key, values in lists.items():
            yield from ((shown_settings({key: value}), {**single, key: value}) for value in values)
        return
    for key, value in found.items():
        for inner in value if isinstance(value, list) else [value]:
            text = key if value is None else f"{key}: {_shown(inner)}"
            yield text, text


def _readings(study: Study, item: _Item, part: Part | None, config: MeZOConfig) -> tuple[Reading, ...]:
    """The settings of an item: of its words, and those that the plan states. Raises Refused with the reason.

    A mapping for all variants adds to what their words say; one for a single variant stands in their place.
    """
    listed = item.given is not None
    stated = item.given if item.given is not None else study.set if isinstance(study.set, dict) else None
    if stated is not None and item.value is ...:
        return (Reading(stated),)
    try:
        readings = _said(study, item, part, config)
    except Refused:
        if stated is None or not (listed or item.alone):
            raise
        return (Reading(stated),)
    if stated is None:
        return readings
    for name, value in (pair for reading in readings for pair in reading.settings.items()):
        other = stated.get(name, getattr(config, name) if listed else value)
        if _plain(other) != _plain(value):
            raise Disagreement(
                f"the words say {name}={_shown(value)}, set: says {name}={_shown(other)}: change one of them"
            )
    if listed:
        return (Reading(stated),)
    return tuple(Reading({**reading.settings, **stated}, reading.note) for reading in readings)


def _said(study: Study, item: _Item, part: Part | None, config: MeZOConfig) -> tuple[Reading, ...]:
    """What the words of an item set."""
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
    """The reading of a study without replacements: its part is removed, or added if its name says enough."""
    if study.action == "REPLACE":
        raise Refused("the plan does not say by what it is replaced")
    if part.reason:
        raise Refused(part.reason)
    if _ABSENT.search(study.ablated_part):
        raise Refused(f"{study.action} of what is not there: say what comes instead as a replacement")
    if study.action == "ADD" and numbers(study.ablated_part):  # "momentum 0.5": the name is the value
        readings = read(study.ablated_part, part, config)
        if len(readings) != 1:
            raise Refused("the plan names several values: list them as replacements")
        return readings[0]
    said = settings_in_name(study.ablated_part, part)
    if study.action == "ADD":
        found = said if any(getattr(config, name) != value for name, value in said.items()) else part.switch
        if not found:
            raise Refused(f"the plan does not say what to add; the {part.title} takes {takes(part)}")
        return Reading(found)
    if part.reader and (reading := READERS[part.reader](None, config)):
        return reading
    if isinstance(part.off, str):
        raise Refused(part.off)
    if said and said.items() <= part.off.items():
        raise Refused("the plan does not say what comes instead")
    return Reading(part.off)


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


def _stub(study: Study, results: list[Result]) -> str:
    """`set:` for a study of which something is not bound, to fill in where "..." stands."""
    part = part_of(study.ablated_part)
    open_setting = part.settings[0] if part and part.settings else "SETTING"
    lines = [
        stated(each.settings)
        if isinstance(each, Case)
        else f"{{{open_setting}: ...}}  # {' '.join(each.text.split())}"
        for each in results
    ]
    return "\n- ".join(["set:", *lines])


def stated(settings: dict[str, Any]) -> str:
    """Settings as one line of YAML."""
    values = {name: _plain(value) for name, value in settings.items()}
    look = {"sort_keys": False, "allow_unicode": True, "default_flow_style": True, "width": 10_000}
    return yaml.safe_dump(values, **look).strip()


def shown_settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _plain(value: Any) -> Any:
    """A tuple of the config as the list of a plan."""
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
