"""The published page of a plan: Markdown with HTML boxes, HTML alone, or Markdown alone.

# title
## Reasoning Trace      text, in a box or up to the next heading
## Ablation Plan
### name of a study
- **Ablated Part**: ... - **Action**: ... - **Replacement**: a list below - **Metrics**: by comma

or tables of studies (`mezo.ablation.formats.tables`).
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from mezo.ablation.formats.blocks import Block, joined
from mezo.ablation.formats.tables import studies_in
from mezo.ablation.plans.fields import is_nothing, split, study_field, study_values
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError
from mezo.util.parsing import parse_json, parse_yaml

_REASONING = re.compile(r"[^a-z]*(?:the )?(?:reasoning|discussion|rationale|thinking)\b", re.IGNORECASE)
_PLAN = re.compile(r"\b(ablations?|plan|studies|predictions)\s*$", re.IGNORECASE)
_BOLD_LINE = re.compile(r"\*\*([^*]+)\*\*\s*:?$")
_BOLD_KEY = re.compile(
    r"\*\*(?P<key>[^*:]{1,60})(?P<inside>:)?\*\*\s*(?P<mark>:|[-–—→](?=\s)|->)?\s*(?P<value>.*)$"
)
_PLAIN_KEY = re.compile(r"(?P<key>[^*:]{1,60}?)(?P<mark>:|\s(?:[-–—→]|->)(?=\s))\s*(?P<value>.*)$")


@dataclass
class _Field:
    """A line "**Key**: value" and the items below it."""

    key: str
    text: str
    items: list[str] = field(default_factory=list)

    def add(self, block: Block) -> None:
        if block.marker:
            self.items.append(block.text)
        elif self.items:
            self.items[-1] += f" {block.text}"
        else:
            self.text = f"{self.text} {block.text}".strip()


@dataclass
class _Section:
    """A study as it is read."""

    name: str | None
    fields: list[_Field]
    notes: list[str]


def plan_of(blocks: list[Block]) -> Plan:
    """The plan of a page. Text around the studies is kept as their, or the plan's, `notes`.

    Raises MezoError if the page has no study, or a study has no part or action.
    """
    reasoning, blocks = _without_reasoning(blocks)
    reader = _PageReader()
    for block in blocks:
        reader.take(block)
    if not reader.sections:
        raise MezoError('expected studies with "- **Ablated Part**: ..." on the page, found none')
    values: dict[str, Any] = {_key(each.key): _value(each) for each in reader.of_plan}
    if notes := "\n".join(reader.notes).strip():
        values.setdefault("notes", notes)
    found = {"title": reader.title, "reasoning": reasoning}
    values |= {name: value for name, value in found.items() if value is not None}
    studies = [_study(section, n) for n, section in enumerate(reader.sections, start=1)]
    return Plan.build(**{**values, "studies": studies})


def _without_reasoning(blocks: list[Block]) -> tuple[str | None, list[Block]]:
    """The text of the first section that is headed as reasoning, and all other blocks.

    It ends with its box, or at a heading as high, or of a study.
    """
    start = next((n for n, b in enumerate(blocks) if _heads(b) and _REASONING.match(b.text)), None)
    if start is None:
        return None, blocks
    heading, end = blocks[start], start + 1
    while end < len(blocks):
        block, following = blocks[end], map(_field_of, blocks[end + 1 : end + 2])
        if heading.boxes and block.floor < heading.boxes:
            break
        of_study = any(found and study_field(found.key) for found in following)
        if not heading.boxes and _heads(block) and (block.level <= heading.level or of_study):
            break
        end += 1
    return joined(blocks[start + 1 : end]), blocks[:start] + blocks[end:]


def _heads(block: Block) -> bool:
    """Whether it is a heading of the page, and none in a list."""
    return block.level > 0 and not block.depth


class _PageReader:
    """Takes blocks one by one and knows where on the page it is."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.sections: list[_Section] = []
        self.of_plan: list[_Field] = []
        self.notes: list[str] = []
        self._heading: str | None = None  # the last one, until it proves to be a study's
        self._below_heading: list[str] = []  # text between a heading and the first field
        self._section: _Section | None = None  # the last one, up to the next heading
        self._field: _Field | None = None  # the last one, as long as items may follow it
        self._depth = 0  # of its item; what is deeper is its value

    def take(self, block: Block) -> None:
        field, found = self._field, _field_of(block)
        if (
            field
            and block.depth > self._depth
            and not (block.level or block.grid or (found and not block.marker))
        ):
            field.add(block)
        elif studies := studies_in(block.grid):
            for study in studies:
                self._take_row(study, alone=len(studies) == 1)
        elif block.level:
            self._take_heading(block.text, first=block.level == 1 and self.title is None)
        elif found:
            self._take_field(found)
            self._depth = block.depth
        elif field and not field.text and block.marker:
            field.add(block)
            self._depth = block.depth
        elif bold := _BOLD_LINE.match(block.text):
            self._take_heading(bold[1].strip().rstrip(":"), first=False)
        elif shown := replace(block, depth=0).shown:
            notes = self._below_heading if self._heading is not None else self.notes
            (self._section.notes if self._section else notes).append(shown)
            self._field = None

    def _take_row(self, study: dict[str, str], *, alone: bool) -> None:
        """A study of a table; a heading names it if it is the only one."""
        name = study.pop("name", "") or None
        known = [_Field(key, cell) for key, cell in study.items() if cell or study_field(key)]
        if self._heading is not None and alone and not _PLAN.search(self._heading):
            name = name or self._heading
        else:
            self._drop_heading()
        self._begin(name, known)
        self._field = None

    def _take_heading(self, text: str, *, first: bool) -> None:
        if first and not self.sections:
            self.title = text
        else:
            self._drop_heading()
            self._heading = text
        self._section = self._field = None

    def _begin(self, name: str | None, fields: list[_Field]) -> _Section:
        self._section = _Section(name, fields, self._below_heading)
        self.sections.append(self._section)
        self._heading, self._below_heading = None, []
        return self._section

    def _drop_heading(self) -> None:
        """A heading with nothing below it is kept as a note, unless it only says that the plan begins."""
        if self._heading is not None and not _PLAN.search(self._heading):
            self.notes.append(self._heading)
        self.notes += self._below_heading
        self._heading, self._below_heading = None, []

    def _take_field(self, found: _Field) -> None:
        self._field = found
        known, section = study_field(found.key), self._section
        if known is None and section is None and (self._heading is None or _PLAN.search(self._heading)):
            self._drop_heading()
            self.of_plan.append(found)
            return
        taken = section is not None and any(study_field(each.key) == known for each in section.fields)
        if section is None or (known in ("name", "ablated_part") and taken):
            section = self._begin(self._heading if section is None else None, [])
        section.fields.append(found)


def _field_of(block: Block) -> _Field | None:
    """A line "**Key**: value" or "Key: value"; the key of a study's field may also be followed by a dash."""
    if block.level:
        return None
    if found := _BOLD_KEY.match(block.text):
        known = found["inside"] or found["mark"] == ":" or (found["mark"] and study_field(found["key"]))
    else:
        found = _PLAIN_KEY.match(block.text)
        known = found and study_field(found["key"])
    return _Field(found["key"].strip(), found["value"].strip()) if found and known else None


def _study(section: _Section, number: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in section.fields:
        key = study_field(each.key) or _key(each.key)
        if key == "metrics":
            found = literal(each.text)
            whole = found if isinstance(found, list) else split(each.text, ",")
            values[key] = [*whole, *(str(literal(item)) for item in each.items)]
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
    return [literal(item) for item in (*filter(None, [each.text]), *each.items)]


def _text(text: str) -> str:
    found = literal(text)
    return found if isinstance(found, str) else text


def _key(name: str) -> str:
    """The field that is shown as "Expected Outcome": expected_outcome."""
    return re.sub(r"\s+", "_", name.strip().lower())


# -------------------------------------------------------------------------------- the value of a line

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(?P<rest>(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_FEW_WORDS = 4


def value_of(text: str) -> Any:
    """The value of a line: a number, a list "a, b" or [a, b], a mapping {a: b}, None, or text.

    JSON in backticks is what it says. Entries separated by ";" or " | " may be of any length.
    """
    if len(text) > 2 and text[0] == text[-1] == "`":
        return literal(text)
    if is_nothing(text):
        return None
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        flow = _flow(text)
        if isinstance(flow, list | dict):
            return flow
    parts = split(text, ";")
    if len(parts) < 2:
        parts = re.split(r"\s+\|\s+", text)
    if len(parts) < 2 and all(len(part.split()) <= _FEW_WORDS for part in split(text, ",;")):
        parts = split(text, ",;")
    return [literal(part) for part in parts] if len(parts) > 1 else literal(text)


def literal(text: str) -> Any:
    """A single value: a number, JSON in backticks, or the text itself."""
    if len(text) > 2 and text[0] == text[-1] == "`":
        try:
            return parse_json(text[1:-1])
        except ValueError:
            return text
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    number = float(text) if found["rest"] else int(text)
    return text if number in (float("inf"), float("-inf")) else number


def _flow(text: str) -> Any:
    """A list or a mapping on one line, as JSON, YAML or Python writes it; None for other text."""
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        found = parse_yaml(text)
    except ValueError:
        return None
    if isinstance(found, list):
        return [literal(each) if isinstance(each, str) else each for each in found]
    if isinstance(found, dict) and found and all(value is None for value in found.values()):
        return list(found)  # a set, {2, 4, 8}
    return found
