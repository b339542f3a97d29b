"""Plans in files: every format that is read or written, and which one a file has."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mezo.ablation.formats.blocks import html_blocks, markdown_blocks
from mezo.ablation.formats.page import plan_of
from mezo.ablation.formats.predictions import has_predictions, parse_predictions
from mezo.ablation.plans.fields import plan_values, repaired
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError, near
from mezo.util.atomic_files import write_text
from mezo.util.escaping import markdown_prose, markdown_text
from mezo.util.foreign import read_text
from mezo.util.parsing import CoreDumper, parse_json, parse_yaml

MOST_BYTES = 1 << 20  # of a plan's file; a plan of a hundred studies has about 50 kB


class _Dumper(CoreDumper):
    """Writes text of several lines as a block, where YAML can hold it so."""


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # quoted: what a plain or block scalar would fold or read as a line's end
    style = '"' if not text.replace("\n", "").isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represented)


def _reads(kind: str, parser: Callable[[str], Any]) -> Callable[[str], Plan]:
    def read(text: str) -> Plan:
        try:
            found = parser(text)
        except ValueError as error:
            raise MezoError(f"not readable as {kind}: {' '.join(str(error).split())}") from None
        return Plan.build(**plan_values(found))

    return read


def to_yaml(plan: Plan) -> str:
    # a wide line: a value broken over lines is harder to read and to edit than a long one
    return yaml.dump(_values(plan), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def to_json(plan: Plan) -> str:
    return json.dumps(_values(plan), indent=2, ensure_ascii=False) + "\n"


def _values(plan: Plan) -> dict[str, Any]:
    # an extra field could be read as the title or reasoning that is missing, so both are written with one
    extra, head = plan.model_extra or {}, {"title": plan.title, "reasoning": plan.reasoning}
    known = {name: value for name, value in head.items() if extra or value is not None}
    return {**known, **extra, "studies": [study.fields for study in plan.studies]}


def to_markdown(plan: Plan) -> str:
    """A page to look at. The plan itself is kept as YAML or JSON."""
    parts = [f"# {markdown_text(plan.title)}"] if plan.title else []
    if plan.reasoning is not None:
        trace = markdown_prose(plan.reasoning)
        parts += ["## Reasoning Trace", markdown_text(plan.reasoning) if trace is None else trace]
    parts.append("## Ablation Plan")
    if plan.model_extra:
        parts.append(_items(plan.model_extra))
    for study in plan.studies:
        fields = {**study.fields, "metrics": ", ".join(study.metrics)}
        parts += [f"### {markdown_text(fields.pop('name'))}", _items(fields)]
    return "\n\n".join(parts) + "\n"


def _items(fields: dict[str, Any]) -> str:
    lines = []
    for name, value in fields.items():
        head = f"- **{markdown_text(name.replace('_', ' ').title())}**:"
        if isinstance(value, dict):
            value = [f"{key}: {_plain(each)}" for key, each in value.items()]
        if isinstance(value, list):
            lines += [head, *(f"  - {markdown_text(_plain(each))}" for each in value)]
        else:
            lines.append(f"{head} {markdown_text(_plain(value))}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return "None" if value is None else value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Format:
    """How a plan is read from text, and written as text (None: it is not written in this format)."""

    read: Callable[[str], Plan]
    write: Callable[[Plan], str] | None = None


_YAML = Format(_reads("YAML", parse_yaml), to_yaml)
_MARKDOWN = Format(lambda text: plan_of(markdown_blocks(repaired(text))), to_markdown)
_HTML = Format(lambda text: plan_of(html_blocks(repaired(text))))
FORMATS: dict[str, Format] = {
    ".yaml": _YAML,
    ".yml": _YAML,
    ".json": Format(_reads("JSON", parse_json), to_json),
    ".jsonl": Format(parse_predictions),
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".html": _HTML,
    ".htm": _HTML,
}
_DATA = (".json", ".yaml", ".yml", ".html", ".htm")  # text of these never is a planner's answer


def read_plan(path: Path | str) -> Plan:
    """The plan in a file, by the ending of its name or else by its content.

    Raises MezoError if the file is not readable, is larger than a mebibyte, or holds no plan.
    """
    path = Path(path)
    try:
        return parse(read_text(path, most=MOST_BYTES, pipe=True).removeprefix("\ufeff"), path.suffix)
    except OSError as error:
        raise MezoError(f"{path}: cannot read the plan: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise MezoError(f"{path}: expected text in UTF-8, found other bytes at {error.start}") from None
    except ValueError as error:
        raise MezoError(f"{path}: {error}") from None


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan in the format of the path's ending: .yaml, .yml, .json, or .md (a page to look at).

    Raises MezoError for another ending, or if the file is not writable.
    """
    path = Path(path)
    found = FORMATS.get(path.suffix.lower())
    if found is None or found.write is None:
        written = [ending for ending, each in FORMATS.items() if each.write]
        raise MezoError(
            f"{path}: plans are written as {', '.join(written)}, not as {path.suffix!r}{near(path.suffix, written)}"
        )
    try:
        write_text(path, found.write(plan))
    except OSError as error:
        raise MezoError(f"{path}: cannot write the plan: {error.strerror}") from None


def parse(text: str, suffix: str = "") -> Plan:
    """The plan in a text. suffix: the ending of its file; with an unknown one the content decides.

    Raises MezoError if there is no plan.
    """
    suffix = suffix.lower()
    if suffix not in _DATA and has_predictions(text):
        return parse_predictions(text)
    return FORMATS[suffix if suffix in FORMATS else _ending_for(text)].read(text)


def _ending_for(text: str) -> str:
    """The ending that fits a text."""
    start = text.lstrip()[:500].lower()
    if start.startswith(("<!doctype", "<html")):
        return ".html"
    if start.startswith(("{", "[")):
        lines = [line for line in text.splitlines() if line.strip()]
        return ".jsonl" if len(lines) > 1 and all(line.startswith("{") for line in lines) else ".json"
    if re.search(r"^\s*(#{1,6}\s|<)|\*\*\s*ablated part", text, re.MULTILINE | re.IGNORECASE):
        return ".md"
    return ".yaml"
