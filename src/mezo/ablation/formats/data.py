"""Plans as YAML and JSON: the formats that are written and read back unchanged."""

import json
from typing import Any

import yaml

from mezo.ablation.plans.fields import plan_values
from mezo.ablation.plans.plan import Plan, Study
from mezo.errors import MezoError
from mezo.util.parsing import CoreDumper, parse_json, parse_yaml


def from_yaml(text: str) -> Plan:
    try:
        found = parse_yaml(text)
    except ValueError as error:
        raise MezoError(f"not readable as YAML: {' '.join(str(error).split())}") from None
    return Plan.build(**plan_values(found))


def from_json(text: str) -> Plan:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise MezoError(f"not readable as JSON: {error}") from None
    return Plan.build(**plan_values(found))


def to_yaml(plan: Plan) -> str:
    # a wide line: a value broken over lines is harder to read and to edit than a long one
    return yaml.dump(_values(plan), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def to_json(plan: Plan) -> str:
    return json.dumps(_values(plan), indent=2, ensure_ascii=False) + "\n"


def _values(plan: Plan) -> dict[str, Any]:
    # an extra field could be read as the title or reasoning that is missing, so both are written with one
    head = {"title": plan.title, "reasoning": plan.reasoning}
    known = {name: value for name, value in head.items() if value or plan.extra or value == ""}
    return {**known, **plan.extra, "studies": [_study(study) for study in plan.studies]}


def _study(study: Study) -> dict[str, Any]:
    values = study.model_dump(include={"name", "ablated_part", "action", "replacement"})
    settings = {} if study.set is None else {"set": study.set}
    return {**values, "metrics": list(study.metrics), **settings, **study.extra}


class _Dumper(CoreDumper):
    """Writes text of several lines as a block, where YAML can hold it so."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # quoted: what a plain or block scalar would fold or read as a line's end
    style = '"' if not text.replace("\n", "").isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
