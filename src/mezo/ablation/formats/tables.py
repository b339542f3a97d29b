"""Studies that a page shows as a table: one a row, one a column, or one in a table of two columns."""

import re
from collections.abc import Sequence

from mezo.ablation.plans.fields import is_nothing, study_field

_COUNTED = re.compile(r"(#|no\.?|nr\.?|id|rank|priority)?$", re.IGNORECASE)
Grid = list[list[str]]
Cells = dict[str, str]  # the cells of one study, by the name of the column (or row)


def studies_in(grid: Grid) -> list[Cells]:
    """The studies of a table; none if it shows something else.

    Its first row or column contains "Ablated Part" and at least one other field of a study. Rows below each
    other with an empty part, or with the same name and part, are one study with several replacements.
    """
    grid = [[_without_emphasis(cell) for cell in row] for row in grid]
    if len(grid) < 2:
        return []
    width = max(map(len, grid))
    square = [row + [""] * (width - len(row)) for row in grid]
    turned = [list(column) for column in zip(*square, strict=True)]
    if _names_fields(square[0]):
        keys, rows = square[0], square[1:]
    elif _names_fields(turned[0]):
        keys, rows = turned[0], turned[1:]
        if (
            study_field(keys[0]) is None
        ):  # above the names of the studies; with one column it is "Field | Value"
            keys = ["Name" if len(rows) > 1 else "", *keys[1:]]
    else:
        return []
    found: list[Cells] = []
    for row in rows:
        study = {key: cell for key, cell in zip(keys, row, strict=True) if not _COUNTED.match(key)}
        if found and (more := _further(found[-1], study)) is not None:
            found[-1][_key_of(found[-1], "replacement")] += f"; {more}"
        elif any(study.values()):
            found.append(study)
    return found


def _names_fields(cells: Sequence[str]) -> bool:
    known = {study_field(cell) for cell in cells} - {None}
    return "ablated_part" in known and len(known) > 1


def _key_of(study: Cells, name: str) -> str:
    return next((key for key in study if study_field(key) == name), "")


def _further(before: Cells, row: Cells) -> str | None:
    """The replacement of a row that continues the study above it; None if it is another study."""
    part, name, replacement = (_key_of(row, key) for key in ("ablated_part", "name", "replacement"))
    if not replacement or is_nothing(row[replacement]):
        return None
    same = all(row[key] in ("", before.get(key, "")) for key in (part, name) if key)
    return row[replacement] if same and (name or not row[part]) else None


def _without_emphasis(cell: str) -> str:
    found = re.fullmatch(r"\*\*(.+)\*\*", cell)
    return found[1].strip() if found else cell
