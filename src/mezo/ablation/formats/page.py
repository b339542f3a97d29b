"""The published page of a plan: Markdown with HTML boxes, HTML alone, or Markdown alone.

# title
## Reasoning Trace      text, in a box or up to the next heading
## Ablation Plan
### name of a study
- **Ablated Part**: ... - **Action**: ... - **Replacement**: a list below - **Metrics**: by comma

or tables of them (`mezo.ablation.formats.tables`).
"""

import re
from dataclasses import dataclass, field
from typing import Any

from mezo.ablation.plans.fields import study_field, study_values
from mezo.ablation.formats.inline_values import decoded, decoded_choices, decoded_list, decoded_text
from mezo.ablation.formats.page_lines import Line, lines_of, repaired
from mezo.ablation.plans.plan import Plan
from mezo.ablation.formats.tables import without_tables
from mezo.errors import MezoError

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_BULLET = re.compile(r"([ \t]*)(?:[-*+•‣◦▪·–—]|\d{1,3}[.)])\s+(.*)$")
_BOLD_LINE = re.compile(r"\s*(?:\d{1,3}[.)]\s*)?\*\*([^*]+)\*\*\s*:?\s*$")
_REASONING = re.compile(r"[^a-z]*(?:the )?(?:reasoning|discussion|rationale|thinking)\b", re.IGNORECASE)
_PLAN = re.compile(r"\b(ablations?|plan|studies|predictions)\s*$", re.IGNORECASE)
_DASHED = re.compile(
    r"[*_]{0,2}((?:ablated[ _]part|component|action|replacements?|metrics?))[*_]{0,2}\s+(?:[-–—→]|->)\s+(.*)$",
    re.I,
)
_LONGEST_KEY = 60


@dataclass
class _Field:
    """A bullet "**Key**: value" and the bullets below it."""

    key: str
    bold: bool
    indent: int  # -1: no bullet
    text: str
    items: list[str] = field(default_factory=list)


@dataclass
class _Section:
    """A study as it is read."""

    name: str | None
    fields: list[_Field] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has(self, key: str) -> bool:
        return any(study_field(each.key) == key for each in self.fields)


def parse_page(text: str, *, html: bool = False) -> Plan:
    """The plan of a page. Text around the studies is kept as their, or the plan's, `notes`.

    Raises MezoError if there is no study on it, or a study lacks its part or action.
    """
    lines = lines_of(repaired(text), html=html)
    reasoning, lines = _without_reasoning(lines)
    reader = _Reader()
    for line in without_tables(lines):
        reader.take(line.text)
    studies = [_study(section, n) for n, section in enumerate(reader.sections, start=1)]
    if not studies:
        raise MezoError('expected studies with "- **Ablated Part**: ..." on the page, found none')
    values: dict[str, Any] = {_key(each.key): _value(each) for each in reader.of_plan}
    if notes := "\n".join(reader.notes).strip():
        values.setdefault("notes", notes)
    if reader.title is not None:
        values["title"] = decoded_text(reader.title)
    if reasoning is not None:
        values["reasoning"] = decoded_text(reasoning)
    return Plan.build(**{**values, "studies": studies})


def _without_reasoning(lines: list[Line]) -> tuple[str | None, list[Line]]:
    """The text of the first section that is headed as reasoning, and all other lines."""
    for start, line in enumerate(lines):
        heading = _HEADING.match(line.text)
        if not heading or heading[2].startswith("`") or not _REASONING.match(heading[2]):
            continue
        end = start + 1
        while end < len(lines) and not _ends(lines, end, line.boxes, len(heading[1])):
            end += 1
        body = "\n".join(each.text for each in lines[start + 1 : end])
        return body.strip(), lines[:start] + lines[end:]
    return None, lines


def _ends(lines: list[Line], place: int, boxes: tuple[int, ...], level: int) -> bool:
    """Whether the reasoning ends before this line: with its box, or at a heading as high, or of a study."""
    if boxes:
        return lines[place].boxes[: len(boxes)] != boxes
    heading = _HEADING.match(lines[place].text)
    if not heading:
        return False
    following = (each.text for each in lines[place + 1 : place + 4] if each.text.strip())
    found = _field_of(next(following, ""))
    return len(heading[1]) <= level or (found is not None and study_field(found.key) is not None)


class _Reader:
    """Takes lines one by one and knows where on the page it is."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.sections: list[_Section] = []
        self.of_plan: list[_Field] = []
        self.notes: list[str] = []
        self._heading: str | None = None  # the last one, until it proves to be a study's
        self._below_heading: list[str] = []  # said of a study before its fields
        self._in_study = False
        self._field: _Field | None = None

    def take(self, text: str) -> None:
        if heading := _HEADING.match(text):
            self._take_heading(heading[2], first=len(heading[1]) == 1 and self.title is None)
        elif found := self._as_field(text):
            self._take_field(found)
        elif self._field is not None and text.strip() and self._belongs(text):
            self._take_value(text)
        elif (bold := _BOLD_LINE.match(text)) and not self._below(text):
            self._take_heading(bold[1].strip().rstrip(":"), first=False)
        elif text.strip() and not re.fullmatch(r"\s*([-*_]\s*){3,}", text):
            notes = self._below_heading if self._heading is not None else self.notes
            (self.sections[-1].notes if self._in_study else notes).append(text.strip())
            self._field = None

    def _take_heading(self, text: str, *, first: bool) -> None:
        if first and not self.sections:
            self.title = text
        else:
            self._drop_heading()
            self._heading = text
        self._in_study, self._field = False, None

    def _drop_heading(self) -> None:
        """A heading with nothing below it: kept as a note, unless it only says that the plan begins."""
        if self._heading is not None and not _PLAN.search(self._heading):
            self.notes.append(self._heading)
        self.notes += self._below_heading
        self._heading, self._below_heading = None, []

    def _as_field(self, text: str) -> _Field | None:
        found = _field_of(text)
        if found is None or (study_field(found.key) is None and not found.bold):
            return None
        return None if self._below(text) else found

    def _below(self, text: str) -> bool:
        """Whether a line is a bullet under the field that is open."""
        bullet = _BULLET.match(text)
        return self._field is not None and bullet is not None and _width(bullet[1]) > self._field.indent >= 0

    def _belongs(self, text: str) -> bool:
        """Bullets below a field, also as far to the left where the field has no value yet; text indented."""
        assert self._field is not None
        if _BULLET.match(text):
            return self._below(text) or not self._field.text
        return _width(text[: len(text) - len(text.lstrip())]) > max(self._field.indent, 0)

    def _take_field(self, found: _Field) -> None:
        known = study_field(found.key)
        section = self.sections[-1] if self._in_study else None
        if known is None and section is None:
            plain = self._heading is None or _PLAN.search(self._heading)
            if plain:
                self._drop_heading()
                self.of_plan.append(found)
                self._field = found
                return
        if section is None or (known in ("name", "ablated_part") and section.has(known)):
            section = _Section(self._heading if section is None else None, notes=self._below_heading)
            self._heading, self._below_heading = None, []
            self.sections.append(section)
            self._in_study = True
        section.fields.append(found)
        self._field = found

    def _take_value(self, text: str) -> None:
        assert self._field is not None
        bullet = _BULLET.match(text)
        if bullet:
            self._field.items.append(bullet[2].strip())
        elif self._field.items:
            self._field.items[-1] += f" {text.strip()}"
        else:
            self._field.text = f"{self._field.text} {text.strip()}".strip()


def _field_of(text: str) -> _Field | None:
    """A line "- **Key**: value", with or without the bullet; the key bold, or in plain letters."""
    bullet = _BULLET.match(text)
    rest = bullet[2] if bullet else text.strip()
    bold = rest.startswith(("**", "__"))
    if rest.startswith("**`"):
        key, found, value = rest[2:].partition("`**:")
        key += "`"
    elif dashed := _DASHED.match(rest):
        key, found, value = dashed[1], "–", dashed[2]
    else:
        key, found, value = rest[: _LONGEST_KEY + 8].partition(":")
        value += rest[_LONGEST_KEY + 8 :] if found else ""
        key = key.strip("*_ \t")
    if not found or not key or (len(key) > _LONGEST_KEY and not key.startswith("`")):
        return None
    value = value.strip()
    if bold and rest[2:].partition(":")[0].rstrip()[-2:] not in ("**", "__") and value[:2] in ("**", "__"):
        value = value[2:].strip()  # "**Key:** value": the colon inside the bold
    return _Field(key, bold, _width(bullet[1]) if bullet else -1, value)


def _study(section: _Section, number: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in section.fields:
        key = study_field(each.key) or _key(each.key)
        if key == "metrics":
            values[key] = [str(decoded_text(item)) for item in each.items] or decoded_list(each.text)
        elif key in ("name", "ablated_part"):
            values[key] = decoded_text(" ".join((each.text, *each.items)).strip())
        elif key == "replacement" and not each.items:
            values[key] = decoded_choices(each.text)
        else:
            values[key] = _value(each)
    if section.name is not None:
        values.setdefault("name", decoded_text(_unmarked(section.name)))
    if section.notes:
        values.setdefault("notes", "\n".join(section.notes))
    return study_values(values, f"study {number} of the page")


def _value(each: _Field) -> Any:
    if not each.items:
        return decoded(each.text)
    pairs = [_field_of(f"- {item}") for item in each.items]
    if all(pair is not None and pair.bold for pair in pairs):
        return {str(decoded_text(pair.key)): decoded(pair.text) for pair in pairs if pair is not None}
    return [decoded(item, whole=True) for item in (*([each.text] if each.text else []), *each.items)]


def _key(shown: str) -> str:
    """The field that is shown as "Expected Outcome": expected_outcome."""
    key = decoded_text(shown)
    return key if key != shown else re.sub(r"\s+", "_", shown.strip().lower())


def _unmarked(name: str) -> str:
    """A heading's text without emphasis and a number before it."""
    found = re.match(r"(?:\d{1,3}[.)]\s+)?\*\*(.+)\*\*$", name)
    return found[1] if found else name


def _width(space: str) -> int:
    return len(space.expandtabs(4))
