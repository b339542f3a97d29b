"""The lines of results.jsonl as what a report compares: each variant with the baseline, seed by seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mezo.ablation.comparison.quantities import Quantity, quantity
from mezo.ablation.comparison.statistics import Paired, Spread, holm, paired, spread
from mezo.ablation.run.cases import BASELINE

# Shown in every table, if they were measured.
ALWAYS = ("loss", "peak_memory_gb", "train_seconds")


@dataclass(frozen=True, slots=True)
class RunResult:
    """One line of kind "run" in results.jsonl."""

    variant: str
    seed: int
    study: str | None = None  # None: of every study, as the shared baseline
    status: str = "ok"  # or failed
    error: str | None = None
    run: str | None = None  # its folder, relative to the study's
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # the changes to the baseline
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "RunResult":
        known = {each.name: line[each.name] for each in fields(cls) if line.get(each.name) is not None}
        metrics = {k: float(v) for k, v in known.get("metrics", {}).items() if type(v) in (int, float)}
        return cls(**{**known, "metrics": metrics})


@dataclass(slots=True)
class Comparison:
    """One variant in one metric."""

    variant: str
    quantity: Quantity
    spread: Spread  # over the variant's own seeds
    paired: Paired | None  # None for the baseline itself
    adjusted: float | None = None  # p by Holm, over all comparisons of the report in this metric


@dataclass(frozen=True, slots=True)
class VariantResult:
    label: str
    settings: Mapping[str, Any]
    runs: tuple[RunResult, ...]  # one a seed, the latest line of each
    note: str  # how its words were read
    is_baseline: bool  # the baseline itself, or equal settings

    @property
    def finished(self) -> tuple[RunResult, ...]:
        return tuple(run for run in self.runs if run.status == "ok")


@dataclass(frozen=True, slots=True)
class StudyResult:
    """A study's variants, the baseline first, and their comparisons."""

    name: str
    part: str
    action: str
    variants: tuple[VariantResult, ...]
    asked: tuple[str, ...]  # metrics that the plan asks for
    uncomputed: tuple[str, ...]  # and those, in its words, that are not computed
    comparisons: tuple[Comparison, ...]

    def of_metric(self, name: str) -> list[Comparison]:
        return [c for c in self.comparisons if c.quantity.name == name]

    @property
    def quantities(self) -> list[Quantity]:
        return list({c.quantity.name: c.quantity for c in self.comparisons}.values())

    @property
    def drawn(self) -> list[tuple[int, VariantResult]]:
        """The variants of the charts, with their colours; one that equals the baseline would hide its curve."""
        return [(n, v) for n, v in enumerate(self.variants) if v.finished and (n == 0 or not v.is_baseline)]


@dataclass(frozen=True, slots=True)
class Results:
    """All of results.jsonl, compared."""

    meta: Mapping[str, Any]  # the lines of kind "meta", the later ones over the earlier
    studies: tuple[StudyResult, ...]
    unbound: tuple[Mapping[str, Any], ...]  # what the plan asked for and could not be bound
    headline: Quantity  # the task's first metric, or the loss
    families: Mapping[str, int]  # metric -> number of comparisons in Holm's adjustment

    @property
    def runs(self) -> list[RunResult]:
        """Every run once: the baseline's are shared by the studies."""
        found = [r for study in self.studies for variant in study.variants for r in variant.runs]
        return list({(run.key or id(run), run.seed): run for run in found}.values())

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})


def compare(lines: Iterable[Mapping[str, Any]]) -> Results:
    """Compare every variant with the baseline. lines: the records of results.jsonl, in their order."""
    kinds: dict[Any, list[Mapping[str, Any]]] = {"run": [], "study": [], "meta": []}
    for line in lines:
        kinds.setdefault(line.get("kind"), []).append(line)
    runs = [RunResult.of(line) for line in kinds["run"]]
    described = {str(line.get("name")): line for line in kinds["study"]}
    meta = {key: value for line in kinds["meta"] for key, value in line.items() if key != "kind"}
    shared = [run for run in runs if run.variant == BASELINE]
    others = [run for run in runs if run.variant != BASELINE]
    names = list(dict.fromkeys([*described, *(run.study for run in others if run.study)]))
    if not names and shared:
        names = ["Baseline"]
    # the first metric of a run's record is the task's headline
    headline = quantity(next((name for run in runs if run.status == "ok" for name in run.metrics), "loss"))
    studies = []
    for name in names:
        mine = [run for run in others if run.study == name]
        studies.append(_study(name, described.get(name, {}), mine, shared, headline))
    unbound = [
        {"study": name, **item} for name, line in described.items() for item in line.get("unbound") or ()
    ]
    return Results(meta, tuple(studies), tuple(unbound), headline, _adjust(studies))


def _study(
    name: str,
    described: Mapping[str, Any],
    runs: list[RunResult],
    shared: list[RunResult],
    headline: Quantity,
) -> StudyResult:
    baseline = VariantResult(BASELINE, {}, _latest(shared), "", True)
    keys = {run.key for run in baseline.runs if run.key}
    notes = described.get("notes") or {}
    variants = [baseline]
    for label in dict.fromkeys(run.variant for run in runs):
        mine = _latest([run for run in runs if run.variant == label])
        same = bool(keys) and {run.key for run in mine} <= keys
        variants.append(VariantResult(label, mine[-1].settings, mine, str(notes.get(label) or ""), same))
    asked = tuple(str(metric) for metric in described.get("metrics") or ())
    measured = dict.fromkeys(key for variant in variants for run in variant.finished for key in run.metrics)
    wanted = dict.fromkeys([headline.name, *asked, *ALWAYS, *measured])
    comparisons = []
    for metric in wanted:
        base = by_seed(baseline, metric)
        for variant in variants if metric in measured else ():
            values = by_seed(variant, metric)
            pair = None if variant.is_baseline else paired(values, base)
            comparisons.append(
                Comparison(variant.label, quantity(metric), spread(list(values.values())), pair)
            )
    return StudyResult(
        name=name,
        part=str(described.get("ablated_part") or ""),
        action=str(described.get("action") or ""),
        variants=tuple(variants),
        asked=asked,
        uncomputed=tuple(str(metric) for metric in described.get("uncomputed") or ()),
        comparisons=tuple(comparisons),
    )


def by_seed(variant: VariantResult, metric: str) -> dict[int, float]:
    """The metric of each finished run that has it, by seed; not the ones that are not finite."""
    found = ((run.seed, run.metrics.get(metric, math.nan)) for run in variant.finished)
    return {seed: value for seed, value in found if math.isfinite(value)}


def _adjust(studies: Sequence[StudyResult]) -> dict[str, int]:
    """Give every comparison Holm's p; returns the number of tests of each metric: all comparisons of the report in it."""
    family: dict[str, list[tuple[Comparison, float]]] = {}
    for study in studies:
        for c in study.comparisons:
            if c.paired is not None and c.paired.p is not None:
                family.setdefault(c.quantity.name, []).append((c, c.paired.p))
    for tests in family.values():
        for (c, _), adjusted in zip(tests, holm([p for _, p in tests]), strict=True):
            c.adjusted = adjusted
    return {metric: len(tests) for metric, tests in family.items()}


def _latest(runs: Sequence[RunResult]) -> tuple[RunResult, ...]:
    """One run a seed: a later line replaces an earlier one, except a finished run by an unfinished one."""
    found: dict[int, RunResult] = {}
    for run in runs:
        if run.seed not in found or run.status == "ok" or found[run.seed].status != "ok":
            found[run.seed] = run
    return tuple(found[seed] for seed in sorted(found))
