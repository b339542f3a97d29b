"""Plans in files: every format that is read or written, and which one a file has."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mezo.ablation.formats.data import from_json, from_yaml, to_json, to_yaml
from mezo.ablation.formats.page import parse_html, parse_markdown
from mezo.ablation.formats.page_text import to_markdown
from mezo.ablation.formats.predictions import has_predictions, parse_predictions
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError, near
from mezo.util.atomic_files import write_text

MOST_BYTES = 1 << 20  # of a plan's file; a plan of a hundred studies has about 50 kB


@dataclass(frozen=True, slots=True)
class Format:
    """How a plan is read from text, and written as text (None: it is not written in this format)."""

    read: Callable[[str], Plan]
    write: Callable[[Plan], str] | None = None
    exact: bool = False  # whether a plan that is written reads back unchanged


FORMATS: dict[str, Format] = {
    ".yaml": Format(from_yaml, to_yaml, exact=True),
    ".yml": Format(from_yaml, to_yaml, exact=True),
    ".json": Format(from_json, to_json, exact=True),
    ".jsonl": Format(parse_predictions),
    ".md": Format(parse_markdown, to_markdown),
    ".markdown": Format(parse_markdown, to_markdown),
    ".html": Format(parse_html),
    ".htm": Format(parse_html),
}
_DATA = (".json", ".yaml", ".yml", ".html", ".htm")  # text of these never is a planner's answer


def read_plan(path: Path | str) -> Plan:
    """The plan in a file, by the ending of its name or else by its content.

    Raises MezoError if the file is not readable, is larger than a mebibyte, or holds no plan.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MezoError(f"{path}: cannot read the plan: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise MezoError(f"{path}: expected a plan of at most {MOST_BYTES} bytes, found a larger file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MezoError(f"{path}: expected text in UTF-8, found other bytes at {error.start}") from None
    try:
        return parse(text, path.suffix)
    except MezoError as error:
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
