"""What a plan comes to: cases to run, and what no setting stands for."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from mezo.config import MeZOConfig


@dataclass(frozen=True, slots=True)
class Case:
    """The baseline or one variant, before its seeds and its share of the budget."""

    study: str | None  # its study's name; None: the baseline, of every study
    label: str  # the replacement as the plan has it; unique within the study
    settings: dict[str, Any] = field(hash=False)  # the changes to the baseline
    config: MeZOConfig = field(hash=False)  # with the baseline's own seed and number of steps
    part: str = ""  # title of its entry in parts.yaml
    note: str = ""  # how the words were read
    place: int = 0  # of its replacement in the study

    @property
    def key(self) -> str:
        return key_of(self.config)

    @property
    def name(self) -> str:
        return self.label if self.study is None else f"{self.study}: {self.label}"


@dataclass(frozen=True, slots=True)
class Unbound:
    """A study's replacement (or all of a study) that no setting stands for."""

    study: str
    text: str  # what could not be bound
    reason: str
    nearest: tuple[str, ...] = ()  # the nearest parts, in everyday words
    place: int = 0  # of its replacement in the study
    disagrees: bool = False  # the words and the `set` of the plan say different things

    def __str__(self) -> str:
        return f"{self.study}, {self.text}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Bound:
    """A plan as settings. Both lists are in the plan's order."""

    variants: tuple[Case, ...]
    unbound: tuple[Unbound, ...]
    metrics: dict[str, tuple[str, ...]] = field(hash=False)  # study -> names of computed metrics
    uncomputed: dict[str, tuple[str, ...]] = field(hash=False)  # study -> metrics, as written, not computed
    stubs: dict[str, str] = field(default_factory=dict, hash=False)  # study -> its `set:` to fill in

    @property
    def disagreements(self) -> list[str]:
        """Where the plan's words and its `set` say different things: study, variant, both readings."""
        return [str(item) for item in self.unbound if item.disagrees]


def key_of(config: MeZOConfig) -> str:
    """Sixteen hexadecimal digits that identify a config.

    Settings at their default are left out, so a later version with more settings finds the runs of an earlier one.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
