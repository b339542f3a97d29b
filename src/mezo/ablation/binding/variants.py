"""A plan as variants of the baseline: what each one changes, and what cannot be bound."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """One change of the baseline."""

    study: str  # its study's name
    label: str  # the replacement as the plan has it; unique within the study
    settings: dict[str, Any] = field(hash=False)  # fields of MeZOConfig and their values
    part: str = ""  # title of its entry in parts.yaml
    note: str = ""  # how the words were read
    is_baseline: bool = False  # the settings are the baseline's own
    place: int = 0  # of its replacement in the study


@dataclass(frozen=True, slots=True)
class Unbound:
    """A study's replacement (or all of a study) that no setting stands for."""

    study: str
    text: str  # what could not be bound
    reason: str
    nearest: tuple[str, ...] = ()  # the nearest parts, in everyday words
    place: int = 0  # of its replacement in the study
    disagrees: bool = False  # the words and the `set` of the plan say different things


@dataclass(frozen=True, slots=True)
class Bound:
    """A plan as settings. Both lists are in the plan's order."""

    variants: tuple[Variant, ...]
    unbound: tuple[Unbound, ...]
    metrics: dict[str, tuple[str, ...]] = field(hash=False)  # study -> names of computed metrics
    uncomputed: dict[str, tuple[str, ...]] = field(hash=False)  # study -> metrics, as written, not computed
    stubs: dict[str, str] = field(default_factory=dict, hash=False)  # study -> its `set:` to fill in

    @property
    def disagreements(self) -> list[str]:
        """Where the plan's words and its `set` say different things: study, variant, both readings."""
        return [f"{item.study}, {item.text}: {item.reason}" for item in self.unbound if item.disagrees]
