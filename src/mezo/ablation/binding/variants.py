"""From a plan in prose to settings of this package: what each variant changes, and what cannot be done."""

from dataclasses import dataclass, field
from typing import Any

from mezo.ablation.plans.plan import Plan
from mezo.config import MeZOConfig


@dataclass(frozen=True, slots=True)
class Variant:
    """One change of the baseline."""

    study: str  # its study's name
    label: str  # the replacement as the plan has it; unique within the study
    settings: dict[str, Any] = field(hash=False)  # fields of MeZOConfig and their values
    part: str = ""  # of the table of parts
    note: str = ""  # what a reader should know of how the words were read
    is_baseline: bool = False  # the settings are the baseline's own


@dataclass(frozen=True, slots=True)
class Unbound:
    """A study's replacement (or all of a study) that is no setting of this package."""

    study: str
    text: str  # what could not be bound
    reason: str
    nearest: tuple[str, ...] = ()  # parts that come nearest, in everyday words


@dataclass(frozen=True, slots=True)
class Bound:
    """A plan as settings. Both lists are in the plan's order."""

    variants: tuple[Variant, ...]
    unbound: tuple[Unbound, ...]
    metrics: dict[str, tuple[str, ...]] = field(hash=False)  # study -> names of computed metrics
    uncomputed: dict[str, tuple[str, ...]] = field(hash=False)  # study -> metrics, as written, not computed
    stubs: dict[str, str] = field(
        default_factory=dict, hash=False
    )  # study with something unbound -> its `set:` to fill in


def bind(plan: Plan, config: MeZOConfig) -> Bound:
    """Resolve every study of `plan` against the baseline `config`; nothing is run, and nothing fetched."""
    from mezo.ablation.binding.metric_names import metric_names
    from mezo.ablation.binding.studies import bind_study, stub

    bound = {study.name: bind_study(study, config) for study in plan.studies}
    results = [result for each in bound.values() for result in each]
    open_studies = (s for s in plan.studies if any(isinstance(r, Unbound) for r in bound[s.name]))
    metrics = {study.name: metric_names(study.metrics) for study in plan.studies}
    return Bound(
        tuple(r for r in results if isinstance(r, Variant)),
        tuple(r for r in results if isinstance(r, Unbound)),
        {name: names for name, (names, _) in metrics.items()},
        {name: unknown for name, (_, unknown) in metrics.items() if unknown},
        {study.name: stub(study, bound[study.name]) for study in open_studies},
    )
