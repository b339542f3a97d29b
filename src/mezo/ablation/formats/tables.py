"""Studies that a page lays out as tables: one a row, one a column, or one a table of two columns.

A table of studies becomes the lines that stand for them in the published form; any other stays as it is.
"""

import re
from collections.abc import Iterator, Sequence

from mezo.ablation.plans.fields import is_nothing, study_field
from mezo.ablation.formats.page_lines import Line

_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?$")
_COUNTED = re.compile(r"(#|no\.?|nr\.?|id|rank|priority)?$", re.IGNORECASE)
_Grid = list[list[str]]


def without_tables(lines: Sequence[Line]) -> list[Line]:
    """`lines`, each study of a table as a heading and bullets.

    A row or column of names has "Ablated Part" among them, and one more field of a study at least. Rows below
    one another with an empty part, or with the same name and part, are one study of several replacements.
    """
    found: list[Line] = []
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and _is_row(lines, end):
            end += 1
        grid = [_cells(line.text) for line in lines[at:end] if not _RULE.match(line.text.strip())]
        studies = _studies(grid) if len(grid) > 1 else []
        if studies:
            headed = _heading_above(found)
            for number, study in enumerate(studies):
                texts = _bullets(study, own_heading=number > 0 or not headed or len(studies) > 1)
                found += [Line(text, lines[at].boxes) for text in texts]
        else:
            found += lines[at : max(end, at + 1)]
        at = max(end, at + 1)
    return found


def _is_row(lines: Sequence[Line], at: int) -> bool:
    """Whether a line is a row: one that begins with a bar, or one of those around a rule with bars in it."""
    text = lines[at].text.strip()
    if text.startswith("|"):
        return True
    ruled = any(
        "|" in line.text and _RULE.match(line.text.strip()) for line in lines[max(0, at - 40) : at + 2]
    )
    return ruled and "|" in text and not re.match(r"[-*#]\s|\*\*", text)


def _cells(text: str) -> list[str]:
    inner = re.sub(r"^\||(?<!\\)\|$", "", text.strip())
    return [_unmarked(cell.strip().replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", inner)]


def _unmarked(cell: str) -> str:
    found = re.fullmatch(r"(\*\*|__|\*|_)(.+)\1", cell)
    return found[2].strip() if found else cell


def _studies(grid: _Grid) -> list[dict[str, str]]:
    """The studies of a table by the names of their fields; none if it is a table of something else."""
    turned = [list(column) for column in zip(*_square(grid), strict=True)]
    if _names_fields(grid[0]):
        keys, rows = grid[0], grid[1:]
    elif _names_fields(turned[0]):
        keys, rows = turned[0], turned[1:]
        if study_field(keys[0]) is None:  # the heads of the columns; of a single one it is "Value"
            keys = ["Name" if len(rows) > 1 else "", *keys[1:]]
    else:
        return []
    found: list[dict[str, str]] = []
    for row in rows:
        study = {key: cell for key, cell in zip(keys, row, strict=False) if not _COUNTED.match(key)}
        if found and (more := _further(found[-1], study)) is not None:
            found[-1][_key_of(found[-1], "replacement")] += f"; {more}"
        elif any(study.values()):
            found.append(study)
    return found


def _square(grid: _Grid) -> _Grid:
    width = max(map(len, grid))
    return [row + [""] * (width - len(row)) for row in grid]


def _names_fields(cells: Sequence[str]) -> bool:
    known = {study_field(cell) for cell in cells} - {None}
    return "ablated_part" in known and len(known) > 1


def _key_of(study: dict[str, str], name: str) -> str:
    return next((key for key in study if study_field(key) == name), "")


def _further(before: dict[str, str], row: dict[str, str]) -> str | None:
    """The replacement of a row that goes on with the study above it; None if it is a study of its own."""
    part, name, replacement = (_key_of(row, key) for key in ("ablated_part", "name", "replacement"))
    if not replacement or is_nothing(row[replacement]):
        return None
    same = all(row[key] in ("", before.get(key, "")) for key in (part, name) if key)
    return row[replacement] if same and (name or not row[part]) else None


def _heading_above(lines: Sequence[Line]) -> bool:
    """Whether what stands right above a table is the heading of a study."""
    last = next((line.text.strip() for line in reversed(lines) if line.text.strip()), "")
    heads = last.startswith("#") or (last.startswith("**") and last.rstrip(":").endswith("**"))
    return heads and re.search(r"(?i)\b(ablations?|plan|studies|predictions)\W*$", last) is None


def _bullets(study: dict[str, str], *, own_heading: bool) -> Iterator[str]:
    name, part = study.get(_key_of(study, "name"), ""), study.get(_key_of(study, "ablated_part"), "")
    if name or own_heading:
        yield f"### {name or part}"
    for key, cell in study.items():
        if study_field(key) != "name" and (cell or study_field(key) is not None):
            yield f"- **{key}**: {cell}"
