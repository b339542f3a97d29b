"""Studies that a page shows as a table: one a row, one a column, or one in a table of two columns."""

import re
from itertools import zip_longest

from mezo.ablation.plans.fields import is_nothing, study_field

_COUNTED = re.compile(r"(#|no\.?|nr\.?|id|rank|priority)?$", re.IGNORECASE)


def studies_in(grid: list[list[str]]) -> list[dict[str, str]]:
    """The studies of a table, as cells by the field or the name of their column; none if it shows something else.

    Its first row or column contains "Ablated Part" and at least one other field of a study. Rows below each
    other with an empty part, or with the same name and part, are one study with several replacements.
    """
    if len(grid) < 2:
        return []
    plain = [[re.sub(r"^\*\*\s*(.+?)\s*\*\*$", r"\1", cell) for cell in row] for row in grid]
    turned = [list(column) for column in zip_longest(*plain, fillvalue="")]
    square = [list(row) for row in zip(*turned, strict=True)]
    found: list[dict[str, str]] = []
    for keys, *rows in (square, turned):
        known = {study_field(key) for key in keys} - {None}
        if "ablated_part" not in known or len(known) < 2:
            continue
        if keys is turned[0] and study_field(keys[0]) is None:
            # above the studies' names; with one column "Field | Value"
            keys[0] = "name" if len(rows) > 1 else ""
        for row in rows:
            study: dict[str, str] = {}
            for key, cell in zip(keys, row, strict=True):
                if not _COUNTED.match(key):
                    name = study_field(key) or key
                    study[name] = study.get(name) or cell
            if found and _continues(found[-1], study):
                found[-1]["replacement"] += f"; {study['replacement']}"
            elif any(study.values()):
                found.append(study)
        break
    return found


def _continues(before: dict[str, str], row: dict[str, str]) -> bool:
    """Whether a row holds a further replacement of the study above it."""
    if is_nothing(row.get("replacement", "")):
        return False
    same = all(row[key] in ("", before[key]) for key in ("ablated_part", "name") if key in row)
    return same and ("name" in row or not row["ablated_part"])
