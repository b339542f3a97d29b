"""What `python -m benchmarks gpu` finds: figures with the aims beside, as lines between processes and as one table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

MARK = "figure: "  # what begins a line of a child that is for the command
HEADS = ("part", "what", "figure", "found", "aim", "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, or a yes (1) or no (0); `why` where there is none."""

    what: str
    name: str
    value: float | None
    low: float | None = None  # of the rounds
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    why: str = ""

    def say(self) -> None:
        """To the command, which started this process."""
        print(MARK + json.dumps(asdict(self)), flush=True)

    @classmethod
    def heard(cls, line: str) -> "Self | None":
        """From a line of a child's output; None: it is something else."""
        return cls(**json.loads(line.removeprefix(MARK))) if line.startswith(MARK) else None

    @classmethod
    def spread(cls, what: str, name: str, values: Mapping[str, float], **aim: float | None) -> Self:
        """From the median, min and max of rounds."""
        return cls(what, name, values["median"], values["min"], values["max"], **aim)  # type: ignore[arg-type]

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.at_most is None and self.at_least is None:
            return None
        if self.value is None:
            return False
        over = self.at_most is not None and self.value > self.at_most
        return not over and (self.at_least is None or self.value >= self.at_least)

    def cells(self) -> tuple[str, str, str, str, str]:
        if self.value is None:
            found = self.why
        else:
            found = f"{self.value:.4g}"
            found += f" ({self.low:.4g} to {self.high:.4g})" if self.low is not None else ""
        aim = f"{self.at_most:g} or less" if self.at_most is not None else ""
        aim = f"{self.at_least:g} or more" if self.at_least is not None else aim
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return self.what, self.name, found, aim, verdict


def table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures in Markdown; a part that came to no end has a line that says why."""
    lines: list[Sequence[str]] = [HEADS, ["---"] * len(HEADS)]
    for name, part in parts.items():
        lines += [(name, *Figure(**figure).cells()) for figure in part["figures"]]
        if part["status"] != "done":
            lines.append((name, part["status"], "", part["reason"], "", ""))
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
