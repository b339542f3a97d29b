"""docs/models.md: what works on which architecture, as the zoo has found it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import transformers
from tests.zoo.building import SKIPPED, architectures
from tests.zoo.judging import TUNINGS, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_INTRODUCTION = """\
# Models

The tuning modes and shortcuts that work on each architecture of transformers {version}, as `python -m tests.zoo` finds by
computing: it builds each class tiny from its config, writes theta + eps z into a second model, and compares four probes over rows
of unequal length and a step, in float32 and bfloat16. A test holds this page to the code.

| column | meaning |
|---|---|
| Full, LoRA, Prefix | `yes`: the numbers agree. `no`: refused in one line; the note quotes its beginning |
| Packed | several rows share a row of the batch |
| Shared beginnings | leading tokens that rows share are computed once |

Without the last two a step takes longer; its numbers are the same. Any other architecture, such as one with its own code, runs
in whatever form agrees with its own logits when the engine starts.

| Architecture | Full | LoRA | Prefix | Packed | Shared beginnings | Note |
|---|---|---|---|---|---|---|
"""
_NOT_BUILT = "\nNot in the table:\n\n"


class Row(NamedTuple):
    name: str
    cells: dict[str, str]  # by way of tuning: yes or no
    packed: str
    shared: str
    note: str

    @classmethod
    def of(cls, name: str, verdicts: dict[str, Verdict]) -> "Row":
        works = [v for v in verdicts.values() if v.outcome == "works"]
        notes = [f"{tuning}: {_short(name, v.note)}" for tuning, v in verdicts.items() if v.note]
        return cls(
            name,
            {tuning: cell(v) for tuning, v in verdicts.items()},
            _yes(bool(works) and all(v.packed for v in works)),
            _yes(bool(works) and all(v.shared for v in works)),
            "; ".join(notes),
        )

    def line(self) -> str:
        cells = [self.cells[tuning] for tuning in TUNINGS]
        return f"| {' | '.join([self.name, *cells, self.packed, self.shared, self.note])} |\n"


def cell(verdict: Verdict) -> str:
    return {"works": "yes", "refused": "no"}.get(verdict.outcome, verdict.outcome)


def render(rows: Iterable[Row], version: str = transformers.__version__) -> str:
    table = "".join(row.line() for row in rows)
    reasons: dict[str, list[str]] = {}
    for name in sorted(SKIPPED):
        if any(a.name == name for a in architectures()):
            reasons.setdefault(SKIPPED[name], []).append(name)
    skipped = "".join(f"- {', '.join(names)}: {reason}.\n" for reason, names in sorted(reasons.items()))
    return _INTRODUCTION.format(version=version) + table + _NOT_BUILT + skipped


def parse(text: str) -> tuple[str, dict[str, Row]]:
    """The version of transformers that the page is of, and its rows."""
    version = re.search(r"transformers (\d[\w.]*),", text)
    assert version is not None, "the page names no version"
    rows = {}
    for line in text.splitlines():
        cells = [part.strip() for part in line.strip("|").split("|")]
        if len(cells) == 7 and cells[0].isidentifier() and cells[0] != "Architecture":
            name, full, lora, prefix, packed, shared, note = cells
            rows[name] = Row(name, dict(full=full, lora=lora, prefix=prefix), packed, shared, note)
    return version[1], rows


def _yes(it: bool) -> str:
    return "yes" if it else "no"


def _short(name: str, error: str) -> str:
    """What an error says before it says what to do."""
    said = error.removeprefix(f"{name}: ").removeprefix(f"{name} ")
    return re.split(r"[:;|]", said)[0].strip()
