"""The fields of a plan, under the names and in the forms that people and language models use."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from mezo.errors import MezoError


def _by_alias(aliases: Mapping[str, str]) -> dict[str, str]:
    return {alias: name for name, known in aliases.items() for alias in (name, *known.split())}


_OF_STUDY = _by_alias(
    {
        "name": "study title ablation",
        "ablated_part": "ablated_component ablated_parts ablated_element ablated_module part_ablated component part",
        "action": "action_type",
        "replacement": "replacements replacement(s) replacement_options replacement_values replaced_by replaced_with"
        " replace_with alternatives",
        "metrics": "metric metric(s) evaluation_metrics metrics_to_report",
        "set": "",
    }
)
_OF_PLAN = _by_alias(
    {
        "title": "",
        "reasoning": "reasoning_trace discussion",
        "studies": "ablations ablation_studies ablation_plan predictions plan",
    }
)
_ACTIONS = {
    "REMOVE": ("remov", "delet", "disabl", "drop", "omit", "without", "ablat"),
    "REPLACE": ("replac", "vary", "varie", "chang", "swap", "substitut", "modif", "tun"),
    "ADD": ("add", "insert", "includ", "introduc", "enabl"),
}
# of Windows-1252, which has no letter for a few bytes
_LETTERS = {bytes([byte]).decode("cp1252", "ignore") or chr(byte): byte for byte in range(0x80, 0x100)}
_LETTER_RUN = re.compile(f"[{re.escape(''.join(_LETTERS))}]{{2,}}")
_NOTHING = {"", "none", "null", "n/a", "na", "nil", "-", "–", "—"}


def study_field(key: str) -> str | None:
    """The field of a study that this name stands for ("Ablated Part", "metric"), or None."""
    return _OF_STUDY.get(_folded(key))


def plan_values(found: Any) -> dict[str, Any]:
    """The fields of a plan from the content of a data file.

    Raises MezoError unless it is a list of studies or a mapping that contains them.
    """
    if isinstance(found, list):
        found = {"studies": found}
    if not isinstance(found, dict):
        raise MezoError(f"expected a list of studies or a mapping of studies, found {_kind(found)}")
    own = {study_field(str(key)) for key in found}
    values = _renamed(found, _OF_PLAN)
    studies = values.get("studies")
    if ("studies" not in found and own & {"ablated_part", "action"}) or (
        studies is None and "replacement" in own
    ):
        return {"studies": [study_values(found, "study 1")]}
    if studies is None and found and all(isinstance(v, dict) for v in found.values()):
        studies, values = dict(found), {}
    if isinstance(studies, dict):
        studies = [{"name": n, **inner} if isinstance(inner, dict) else inner for n, inner in studies.items()]
    if not isinstance(studies, list):
        raise MezoError(f"expected a list under 'studies', found {_kind(studies)}")
    values["studies"] = [study_values(s, f"study {n}") for n, s in enumerate(studies, start=1)]
    return values


def study_values(found: Any, where: str) -> dict[str, Any]:
    """The fields of one study under their own names and in their own forms; other fields unchanged.

    Raises MezoError if `found` is no mapping, or a field is missing or invalid.
    """
    if not isinstance(found, dict):
        raise MezoError(
            f"{where}: expected a mapping with name, ablated_part and action, found {_kind(found)}"
        )
    values = _renamed(found, _OF_STUDY)
    part = values.get("ablated_part")
    if not isinstance(part, str) or not part.strip():
        raise MezoError(f"{where}: expected the ablated part as text, found {_kind(part)}")
    name, action, replacement = (values.get(key) for key in ("name", "action", "replacement"))
    text = re.sub(r"[^a-z]+", " ", str(action).lower()).strip()
    known = [action for action, stems in _ACTIONS.items() if text.startswith(stems)]  # "Removal", "vary"
    if not known:
        raise MezoError(f"{where}: expected the action REMOVE, REPLACE or ADD, found {action!r}")
    if isinstance(replacement, str) and is_nothing(replacement):
        replacement = None
    values["name"], values["action"] = part if name in (None, "") else str(name), known[0]
    values["replacement"] = replacement if isinstance(replacement, list | dict | None) else [replacement]
    values["metrics"] = _metrics(values.get("metrics"), where)
    return values


def repaired(text: str) -> str:
    """`text` with UTF-8 that was read as Windows-1252 corrected: "ðŸ§\\xa0" is "🧠".

    Only runs of letters that are whole UTF-8 are changed; "naïve café" is not.
    """

    def back(match: re.Match[str]) -> str:
        try:
            return bytes(_LETTERS[letter] for letter in match[0]).decode("utf-8")
        except UnicodeDecodeError:
            return match[0]

    return _LETTER_RUN.sub(back, text)


def is_nothing(text: str) -> bool:
    return text.strip().lower() in _NOTHING


def split(text: str, marks: str) -> list[str]:
    """`text` split at any of `marks` outside brackets, without empty parts."""
    cuts, depth = [-1], 0
    for i, letter in enumerate(text):
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter in marks and depth == 0:
            cuts.append(i)
    parts = (text[a + 1 : b].strip() for a, b in pairwise([*cuts, len(text)]))
    return list(filter(None, parts))


def _metrics(found: Any, where: str) -> list[str]:
    """A list of texts; a single text is split at commas outside brackets."""
    if found is None:
        return []
    if isinstance(found, str):
        return [] if is_nothing(found) else split(found, ",;")
    if isinstance(found, dict):
        return [f"{key}: {value}" if value else str(key) for key, value in found.items()]
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return found
    raise MezoError(f"{where}: expected metrics as a list of texts, found {found!r:.80}")


def _renamed(found: Mapping[Any, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`found` with aliases replaced by field names. A field under its own name wins over an alias."""
    values: dict[str, Any] = {str(key): value for key, value in found.items()}
    for key in [key for key in values if key not in names.values()]:
        name = names.get(_folded(key))
        if name is not None and name not in values:
            values[name] = values.pop(key)
    return values


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]+", "_", key.strip().lower())


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"
