"""Plans as text in every format: YAML, JSON, planner output, Markdown and HTML pages.

Nothing in a plan is ever evaluated: YAML is read by its safe loader, and pages as text.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from mezo.ablation.plans.fields import plan_values
from mezo.ablation.formats.page import parse_page
from mezo.ablation.formats.page_text import to_html, to_markdown
from mezo.ablation.plans.plan import Plan, Study
from mezo.ablation.formats.predictions import has_predictions, parse_predictions, to_predictions
from mezo.errors import MezoError
from mezo.parsing import CoreDumper, parse_json, parse_yaml

_FIELDS = ("name", "ablated_part", "action", "replacement", "metrics")


def parse(text: str, suffix: str = "") -> Plan:
    """The plan that a text holds. suffix: of its file; any unknown one lets the content decide.

    Raises MezoError if it holds none.
    """
    suffix = suffix.lower()
    if suffix not in (".json", ".yaml", ".yml", ".html", ".htm") and has_predictions(text):
        return parse_predictions(text)
    reader = _READERS.get(suffix) or _READERS[_kind(text)]
    return reader(text)


def _kind(text: str) -> str:
    """The ending that a text without a known one should have."""
    start = text.lstrip()[:500].lower()
    if start.startswith(("<!doctype", "<html")):
        return ".html"
    if start.startswith(("{", "[")):
        lines = [line for line in text.splitlines() if line.strip()]
        return ".jsonl" if len(lines) > 1 and all(line.startswith("{") for line in lines) else ".json"
    if re.search(r"^\s*(#{1,6}\s|<)|\*\*\s*ablated part", text, re.MULTILINE | re.IGNORECASE):
        return ".md"
    return ".yaml"


def _parse_yaml(text: str) -> Plan:
    try:
        found = parse_yaml(text)
    except ValueError as error:
        raise MezoError(f"not readable as YAML: {' '.join(str(error).split())}") from None
    return Plan.build(**plan_values(found, ""))


def _parse_json(text: str) -> Plan:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise MezoError(f"not readable as JSON: {error}") from None
    return Plan.build(**plan_values(found, ""))


def to_yaml(plan: Plan) -> str:
    # a wide line: a value broken over lines is harder to read and to edit than a long one
    return yaml.dump(_values(plan), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def to_json(plan: Plan) -> str:
    return json.dumps(_values(plan), indent=2, ensure_ascii=False) + "\n"


def study_dict(study: Study) -> dict[str, Any]:
    """A study's fields in order, those of its source last."""
    values = {name: getattr(study, name) for name in _FIELDS}
    values["metrics"] = list(study.metrics)
    return values | ({} if study.set is None else {"set": study.set}) | study.extra


def _values(plan: Plan) -> dict[str, Any]:
    # with fields of the source beside them, one could be taken for a title or a reasoning that is not there
    head = {"title": plan.title, "reasoning": plan.reasoning}
    known = {name: value for name, value in head.items() if value or plan.extra or value == ""}
    return {**known, **plan.extra, "studies": [study_dict(study) for study in plan.studies]}


class _Dumper(CoreDumper):
    """Text of several lines as a block, where YAML can hold it so."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # quoted, what a plain or block scalar would fold or take for a line's end
    style = '"' if not text.replace("\n", "").isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)

_READERS: dict[str, Callable[[str], Plan]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": _parse_json,
    ".jsonl": parse_predictions,
    ".md": parse_page,
    ".markdown": parse_page,
    ".html": lambda text: parse_page(text, html=True),
    ".htm": lambda text: parse_page(text, html=True),
}

WRITERS: dict[str, Callable[[Plan], str]] = {
    ".yaml": to_yaml,
    ".yml": to_yaml,
    ".json": to_json,
    ".jsonl": lambda plan: to_predictions(plan, [study_dict(study) for study in plan.studies]),
    ".md": to_markdown,
    ".html": to_html,
}
