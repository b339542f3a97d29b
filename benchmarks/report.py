"""The result of a measurement, as one JSON object or as a table for a terminal or a page."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # one measured setting: its description, "seconds", "ratios", and more


@dataclass(frozen=True)
class Column:
    """A column of the table, and its text for a row (empty if the row has no such figure)."""

    head: str
    text: Callable[[Row], str]


@dataclass(frozen=True)
class Report:
    """The figures of one command."""

    command: str
    options: Mapping[str, Any]
    rows: Sequence[Row]
    columns: Sequence[Column]
    threads: int
    notes: Sequence[str] = field(default=())  # printed below the table

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": f"python -m benchmarks {self.command}",
            "options": dict(self.options),
            "machine": {**machine(), "threads": self.threads},
            "rows": list(self.rows),
            "notes": list(self.notes),
        }

    def cells(self) -> list[list[str]]:
        return [[column.text(row) for column in self.columns] for row in self.rows]

    def markdown(self) -> str:
        """The table in Markdown."""
        heads = [column.head for column in self.columns]
        lines = [heads, ["---"] * len(heads), *self.cells()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def print(self) -> None:
        """Print the table to a terminal or a file."""
        from rich.console import Console
        from rich.table import Table

        console = Console()
        if not console.is_terminal:
            console.width = 200
        table = Table(*(column.head for column in self.columns))
        for cells in self.cells():
            table.add_row(*cells)
        about = machine()
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, markup=False)
        console.print(
            f"{about['cpu']}, {self.threads} thread{'s' * (self.threads > 1)}, torch {about['torch']}",
            highlight=False,
        )


def machine() -> dict[str, Any]:
    """The processor and the versions that the figures depend on."""
    import torch
    import transformers

    import mezo

    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "mezo": mezo.__version__,
    }


def _cpu() -> str:
    """The model name of the processor, if the system reports one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def spread(values: Mapping[str, float] | None, *, unit: str = "", digits: int = 2) -> str:
    """`0.65 (0.63 to 0.70)` from a spread as in the JSON; an empty text for None."""
    if values is None:
        return ""
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median}{unit} ({low} to {high})"


def of_ratio(name: str, *, digits: int = 2) -> Callable[[Row], str]:
    """A column that shows one of the row's ratios."""
    return lambda row: spread(row["ratios"].get(name), digits=digits)


def of_seconds(case: str) -> Callable[[Row], str]:
    """A column that shows the median seconds of one case."""
    return lambda row: f"{row['seconds'][case]['median']:.3g}" if case in row["seconds"] else ""
