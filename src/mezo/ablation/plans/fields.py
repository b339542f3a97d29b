"""The fields of a plan under the names and in the forms that people and language models give them."""

import re
from collections.abc import Mapping
from typing import Any

from mezo.errors import MezoError

_OF_STUDY = {
    "name": "name",
    "study": "name",
    "title": "name",
    "ablation": "name",
    "ablated_part": "ablated_part",
    "ablated_component": "ablated_part",
    "ablated_parts": "ablated_part",
    "ablated_element": "ablated_part",
    "ablated_module": "ablated_part",
    "part_ablated": "ablated_part",
    "component": "ablated_part",
    "part": "ablated_part",
    "action": "action",
    "action_type": "action",
    "replacement": "replacement",
    "replacements": "replacement",
    "replacement(s)": "replacement",
    "replacement_options": "replacement",
    "replacement_values": "replacement",
    "replaced_by": "replacement",
    "replaced_with": "replacement",
    "replace_with": "replacement",
    "alternatives": "replacement",
    "metrics": "metrics",
    "metric": "metrics",
    "metric(s)": "metrics",
    "evaluation_metrics": "metrics",
    "metrics_to_report": "metrics",
    "set": "set",
}
_OF_PLAN = {
    "title": "title",
    "reasoning": "reasoning",
    "reasoning_trace": "reasoning",
    "discussion": "reasoning",
    "studies": "studies",
    "ablations": "studies",
    "ablation_studies": "studies",
    "ablation_plan": "studies",
    "predictions": "studies",
    "plan": "studies",
}
_ACTIONS = {
    "REMOVE": ("remov", "delet", "disabl", "drop", "omit", "without", "ablat"),
    "REPLACE": ("replac", "vary", "varie", "chang", "swap", "substitut", "modif", "tun"),
    "ADD": ("add", "insert", "includ", "introduc", "enabl"),
}
_NOTHING = {"", "none", "null", "n/a", "na", "nil", "-", "–", "—"}


def study_field(key: str) -> str | None:
    """The field of a study that goes by this name, if one does: "Ablated Part", "metric"."""
    return _OF_STUDY.get(_folded(key))


def plan_values(found: Any, where: str) -> dict[str, Any]:
    """What a file in a format of data holds, as the fields of a plan.

    Raises MezoError if it is neither a list of studies nor a mapping that has them.
    """
    if isinstance(found, list):
        found = {"studies": found}
    if not isinstance(found, dict):
        raise MezoError(f"{where}expected a list of studies or a mapping of studies, found {_kind(found)}")
    own = {study_field(str(key)) for key in found}
    values = _renamed(found, _OF_PLAN)
    studies = values.get("studies")
    if ("studies" not in found and own & {"ablated_part", "action"}) or (
        studies is None and "replacement" in own
    ):
        return {"studies": [study_values(found, f"{where}study 1")]}
    if studies is None and found and all(isinstance(v, dict) for v in found.values()):
        studies, values = dict(found), {}
    if isinstance(studies, dict):
        studies = [
            {"name": name, **inner} if isinstance(inner, dict) else inner for name, inner in studies.items()
        ]
    if not isinstance(studies, list):
        raise MezoError(f"{where}expected a list under 'studies', found {_kind(studies)}")
    values["studies"] = [study_values(s, f"{where}study {n}") for n, s in enumerate(studies, start=1)]
    return values


def study_values(found: Any, where: str) -> dict[str, Any]:
    """The fields of one study in their own names and forms; fields that are not among these as they are.

    Raises MezoError if it is no mapping, or a field is missing or no such thing.
    """
    if not isinstance(found, dict):
        raise MezoError(
            f"{where}: expected a mapping with name, ablated_part and action, found {_kind(found)}"
        )
    values = _renamed(found, _OF_STUDY)
    part = values.get("ablated_part")
    if not isinstance(part, str) or not part.strip():
        raise MezoError(f"{where}: expected the ablated part as text, found {_kind(part)}")
    if values.get("name") in (None, ""):
        values["name"] = part
    elif not isinstance(values["name"], str):
        values["name"] = str(values["name"])
    values["action"] = action(values.get("action"), where)
    values["replacement"] = replacement(values.get("replacement"))
    values["metrics"] = metrics(values.get("metrics"), where)
    return values


def action(found: Any, where: str) -> str:
    """REMOVE, REPLACE or ADD, from any case and from words that mean one: "Removal", "vary"."""
    text = re.sub(r"[^a-z]+", " ", str(found).lower()).strip()
    for name, stems in _ACTIONS.items():
        if text.startswith(stems):
            return name
    raise MezoError(f"{where}: expected the action REMOVE, REPLACE or ADD, found {found!r}")


def replacement(found: Any) -> Any:
    """A list or a mapping as it is, one value as a list, "None" and the like as none."""
    if found is None or (isinstance(found, str) and is_nothing(found)):
        return None
    return found if isinstance(found, list | dict) else [found]


def metrics(found: Any, where: str) -> list[str]:
    """A list of texts; one text is taken apart at its commas, but for those in brackets."""
    if found is None:
        return []
    if isinstance(found, str):
        return [] if is_nothing(found) else split(found, ",;")
    if isinstance(found, dict):
        return [f"{key}: {value}" if value else str(key) for key, value in found.items()]
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return found
    raise MezoError(f"{where}: expected metrics as a list of texts, found {found!r:.80}")


def is_nothing(text: str) -> bool:
    return text.strip().lower() in _NOTHING


def split(text: str, marks: str) -> list[str]:
    """`text` taken apart at any of `marks` outside brackets, without what is empty."""
    parts, start, depth = [], 0, 0
    for i, letter in enumerate(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth = max(0, depth - 1)
        elif letter in marks and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _renamed(found: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """With other names of known fields replaced by their own; a field's own name goes before others."""
    own = set(names.values())
    values: dict[str, Any] = {str(key): value for key, value in found.items()}
    for key in [key for key in values if key not in own]:
        name = names.get(_folded(key))
        if name is not None and name not in values:
            values[name] = values.pop(key)
    return values


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]+", "_", key.strip().lower())


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"
