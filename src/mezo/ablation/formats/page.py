"""The published page of a plan: Markdown with HTML boxes, HTML alone, or Markdown alone.

# title
## Reasoning Trace      text, in a box or up to the next heading
## Ablation Plan
### name of a study
- **Ablated Part**: ... - **Action**: ... - **Replacement**: a list below - **Metrics**: by comma

or tables of studies (`mezo.ablation.formats.tables`).
"""

import re
from dataclasses import dataclass, field
from typing import Any

from mezo.ablation.formats.inline_values import literal, value_of
from mezo.ablation.formats.page_lines import Line, html_lines, markdown_lines, shown
from mezo.ablation.formats.tables import studies_in
from mezo.ablation.plans.encoding import repaired
from mezo.ablation.plans.fields import split, study_field, study_values
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError

_REASONING = re.compile(r"[^a-z]*(?:the )?(?:reasoning|discussion|rationale|thinking)\b", re.IGNORECASE)
_PLAN = re.compile(r"\b(ablations?|plan|studies|predictions)\s*$", re.IGNORECASE)
_BOLD_LINE = re.compile(r"\*\*([^*]+)\*\*\s*:?$")
_BOLD_KEY = re.compile(
    r"\*\*(?P<key>[^*:]{1,60})(?P<inside>:)?\*\*\s*(?P<mark>:|[-–—→](?=\s)|->)?\s*(?P<value>.*)$"
)
_PLAIN_KEY = re.compile(r"(?P<key>[^*:]{1,60}?)(?P<mark>:|\s(?:[-–—→]|->)(?=\s))\s*(?P<value>.*)$")


@dataclass
class _Field:
    """An item "**Key**: value" and the items below it."""

    key: str
    parts: list[str]  # of its text
    indent: int
    entries: list[list[str]] = field(default_factory=list)  # parts of each item below it

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.parts))

    @property
    def items(self) -> list[str]:
        return [" ".join(parts) for parts in self.entries]


@dataclass
class _Section:
    """A study as it is read."""

    name: str | None
    fields: list[_Field] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def parse_markdown(text: str) -> Plan:
    return _parse(markdown_lines(repaired(text)))


def parse_html(text: str) -> Plan:
    return _parse(html_lines(repaired(text)))


def _parse(lines: list[Line]) -> Plan:
    """The plan of a page. Text around the studies is kept as their, or the plan's, `notes`.

    Raises MezoError if the page has no study, or a study has no part or action.
    """
    reasoning, lines = _without_reasoning(lines)
    reader = _PageReader()
    for line in lines:
        reader.take(line)
    studies = [_study(section, n) for n, section in enumerate(reader.sections, start=1)]
    if not studies:
        raise MezoError('expected studies with "- **Ablated Part**: ..." on the page, found none')
    values: dict[str, Any] = {_key(each.key): _value(each) for each in reader.of_plan}
    if notes := "\n".join(reader.notes).strip():
        values.setdefault("notes", notes)
    if reader.title is not None:
        values["title"] = reader.title
    if reasoning is not None:
        values["reasoning"] = reasoning
    return Plan.build(**{**values, "studies": studies})


def _without_reasoning(lines: list[Line]) -> tuple[str | None, list[Line]]:
    """The text of the first section that is headed as reasoning, and all other lines."""
    for start, line in enumerate(lines):
        if not line.level or not _REASONING.match(line.text):
            continue
        end = start + 1
        while end < len(lines) and not _ends(lines, end, line):
            end += 1
        return shown(lines[start + 1 : end]), lines[:start] + lines[end:]
    return None, lines


def _ends(lines: list[Line], place: int, heading: Line) -> bool:
    """Whether the reasoning ends before this line: with its box, or at a heading as high, or of a study."""
    line = lines[place]
    if heading.boxes:
        return line.boxes[: len(heading.boxes)] != heading.boxes
    following = _field_of(lines[place + 1]) if place + 1 < len(lines) else None
    return bool(line.level) and (
        line.level <= heading.level or (following is not None and study_field(following.key) is not None)
    )


class _PageReader:
    """Takes lines one by one and knows where on the page it is."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.sections: list[_Section] = []
        self.of_plan: list[_Field] = []
        self.notes: list[str] = []
        self._heading: str | None = None  # the last one, until it proves to be a study's
        self._below_heading: list[str] = []  # text between a heading and the first field
        self._in_study = False
        self._field: _Field | None = None

    def take(self, line: Line) -> None:
        studies = studies_in(line.grid)
        if studies:
            self._take_table(studies)
        elif line.level:
            self._take_heading(line.text, first=line.level == 1 and self.title is None)
        elif not self._below(line) and (found := _field_of(line)) is not None:
            self._take_field(found)
        elif self._field is not None and self._belongs(line):
            self._take_value(line)
        elif (bold := _BOLD_LINE.match(line.text)) and not self._below(line):
            self._take_heading(bold[1].strip().rstrip(":"), first=False)
        elif line.text or line.grid:
            notes = self._below_heading if self._heading is not None else self.notes
            (self.sections[-1].notes if self._in_study else notes).append(shown([line]))
            self._field = None

    def _take_table(self, studies: list[dict[str, str]]) -> None:
        headed = self._heading is not None and not _PLAN.search(self._heading)
        for study in studies:
            own = next((cell for key, cell in study.items() if study_field(key) == "name" and cell), None)
            name = self._heading if headed and len(studies) == 1 and own is None else own
            if not headed or len(studies) > 1:
                self._drop_heading()
            cells = {k: c for k, c in study.items() if study_field(k) != "name"}
            known = [_Field(key, [cell], 0) for key, cell in cells.items() if cell or study_field(key)]
            self.sections.append(_Section(name, known, self._below_heading))
            self._heading, self._below_heading = None, []
        self._in_study, self._field = True, None

    def _take_heading(self, text: str, *, first: bool) -> None:
        if first and not self.sections:
            self.title = text
        else:
            self._drop_heading()
            self._heading = text
        self._in_study, self._field = False, None

    def _drop_heading(self) -> None:
        """A heading with nothing below it is kept as a note, unless it only says that the plan begins."""
        if self._heading is not None and not _PLAN.search(self._heading):
            self.notes.append(self._heading)
        self.notes += self._below_heading
        self._heading, self._below_heading = None, []

    def _below(self, line: Line) -> bool:
        """Whether a line is an item below the field that is open."""
        opened = self._field
        return opened is not None and opened.indent > 0 and bool(line.marker) and line.indent > opened.indent

    def _belongs(self, line: Line) -> bool:
        """Whether a line continues the open field: an item below it, any item if it has no value, an indented line."""
        assert self._field is not None
        if line.marker:
            return self._below(line) or not any(self._field.parts)
        return line.indent > self._field.indent and bool(line.text)

    def _take_field(self, found: _Field) -> None:
        known = study_field(found.key)
        section = self.sections[-1] if self._in_study else None
        if known is None and section is None and (self._heading is None or _PLAN.search(self._heading)):
            self._drop_heading()
            self.of_plan.append(found)
            self._field = found
            return
        taken = section is not None and any(study_field(each.key) == known for each in section.fields)
        if section is None or (known in ("name", "ablated_part") and taken):
            section = _Section(self._heading if section is None else None, notes=self._below_heading)
            self._heading, self._below_heading = None, []
            self.sections.append(section)
            self._in_study = True
        section.fields.append(found)
        self._field = found

    def _take_value(self, line: Line) -> None:
        assert self._field is not None
        if line.marker:
            self._field.entries.append([line.text])
        else:
            (self._field.entries[-1] if self._field.entries else self._field.parts).append(line.text)


def _field_of(line: Line) -> _Field | None:
    """A line "**Key**: value" or "Key: value"; the key of a study's field may also be followed by a dash."""
    if line.level:
        return None
    if bold := _BOLD_KEY.match(line.text):
        found, key = (
            bold,
            bold["inside"] or bold["mark"] == ":" or (bold["mark"] and study_field(bold["key"])),
        )
    else:
        found = _PLAIN_KEY.match(line.text)
        key = found and study_field(found["key"])
    if found is None or not key:
        return None
    return _Field(found["key"].strip(), [found["value"].strip()], line.indent if line.marker else 0)


def _study(section: _Section, number: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in section.fields:
        key = study_field(each.key) or _key(each.key)
        if key == "metrics":
            found = literal(each.text)
            values[key] = [str(literal(i)) for i in each.items] or (
                found if isinstance(found, list) else split(each.text, ",")
            )
        elif key in ("name", "ablated_part"):
            values[key] = _text(" ".join((each.text, *each.items)).strip())
        else:
            values[key] = _value(each)
    if section.name is not None:
        values.setdefault("name", re.sub(r"^(?:\d{1,3}[.)]\s+)?\*\*(.+)\*\*$", r"\1", _text(section.name)))
    if section.notes:
        values.setdefault("notes", "\n".join(section.notes))
    return study_values(values, f"study {number} of the page")


def _value(each: _Field) -> Any:
    if not each.items:
        return value_of(each.text)
    pairs = [
        found
        for item in each.items
        if (found := _BOLD_KEY.match(item)) and (found["inside"] or found["mark"])
    ]
    if len(pairs) == len(each.items):
        return {pair["key"]: value_of(pair["value"]) for pair in pairs}
    return [literal(item) for item in (*([each.text] if each.text else []), *each.items)]


def _text(text: str) -> str:
    found = literal(text)
    return found if isinstance(found, str) else text


def _key(name: str) -> str:
    """The field that is shown as "Expected Outcome": expected_outcome."""
    return re.sub(r"\s+", "_", name.strip().lower())
