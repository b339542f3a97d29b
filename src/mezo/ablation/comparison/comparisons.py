"""The lines of results.jsonl as what a report compares: each variant with the baseline, seed by seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mezo.ablation.comparison.quantities import Quantity, quantity
from mezo.ablation.comparison.statistics import Paired, Spread, holm, paired, spread
from mezo.ablation.run.cases import BASELINE

# Shown in every table, if they were measured.
ALWAYS = ("loss", "peak_memory_gb", "train_seconds")


@dataclass(frozen=True, slots=True)
class RunResult:
    """One line of kind "run" in results.jsonl."""

    study: str | None  # None: of every study, as the shared baseline
    variant: str
    seed: int
    status: str  # ok, failed or stopped
    error: str | None
    path: str | None  # of its run folder, relative to the study's
    steps: int
    metrics: Mapping[str, float]
    settings: Mapping[str, Any]  # the changes to the baseline
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    key: str

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "RunResult":
        metrics = line.get("metrics") or {}
        return cls(
            study=line.get("study") or None,
            variant=str(line["variant"]),
            seed=int(line["seed"]),
            status=str(line.get("status", "ok")),
            error=line.get("error"),
            path=line.get("run"),
            steps=int(line.get("steps") or 0),
            metrics={k: float(v) for k, v in metrics.items() if type(v) in (int, float)},
            settings=line.get("settings") or {},
            config=line.get("config") or {},
            versions=line.get("versions") or {},
            key=str(line.get("key", "")),
        )


@dataclass(frozen=True, slots=True)
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
    lines = list(lines)
    runs = [RunResult.of(line) for line in lines if line.get("kind") == "run"]
    described = {str(line.get("name")): line for line in lines if line.get("kind") == "study"}
    meta: dict[str, Any] = {}
    for line in lines:
        if line.get("kind") == "meta":
            meta |= {key: value for key, value in line.items() if key != "kind"}
    names = dict.fromkeys([*described, *(run.study for run in runs if run.study and run.variant != BASELINE)])
    shared = [run for run in runs if run.variant == BASELINE]
    headline = _headline(runs)
    studies = []
    for name in names:
        mine = [run for run in runs if run.study == name and run.variant != BASELINE]
        studies.append(_study(name, described.get(name, {}), mine, shared, headline))
    if not studies and shared:
        studies.append(_study("Baseline", {}, [], shared, headline))
    studies, families = _adjusted(studies)
    unbound = [
        {"study": name, **item} for name, line in described.items() for item in line.get("unbound") or ()
    ]
    return Results(meta, tuple(studies), tuple(unbound), headline, families)


def _study(
    name: str,
    described: Mapping[str, Any],
    runs: list[RunResult],
    shared: list[RunResult],
    headline: Quantity,
) -> StudyResult:
    own = [run for run in shared if run.study == name]
    baseline = VariantResult(BASELINE, {}, _latest(own or shared), "", True)
    keys = {run.key for run in baseline.runs if run.key}
    variants = [baseline]
    for label in dict.fromkeys(run.variant for run in runs):
        mine = _latest([run for run in runs if run.variant == label])
        same = bool(keys) and {run.key for run in mine} <= keys
        note = str((described.get("notes") or {}).get(label) or "")
        variants.append(VariantResult(label, mine[-1].settings, mine, note, same))
    asked = tuple(str(metric) for metric in described.get("metrics") or ())
    measured = dict.fromkeys(key for variant in variants for run in variant.finished for key in run.metrics)
    wanted = dict.fromkeys([headline.name, *(m for m in asked if m in measured), *ALWAYS, *measured])
    comparisons = [
        _comparison(variant, baseline, quantity(metric))
        for metric in wanted
        if metric in measured
        for variant in variants
    ]
    return StudyResult(
        name=name,
        part=str(described.get("ablated_part") or ""),
        action=str(described.get("action") or ""),
        variants=tuple(variants),
        asked=asked,
        uncomputed=tuple(str(metric) for metric in described.get("uncomputed") or ()),
        comparisons=tuple(comparisons),
    )


def _comparison(variant: VariantResult, baseline: VariantResult, metric: Quantity) -> Comparison:
    values = by_seed(variant, metric.name)
    against = None if variant.is_baseline else paired(values, by_seed(baseline, metric.name))
    return Comparison(variant.label, metric, spread(list(values.values())), against)


def by_seed(variant: VariantResult, metric: str) -> dict[int, float]:
    """The metric of each finished run that has it, by seed; not the ones that are not finite."""
    found = {run.seed: run.metrics.get(metric, math.nan) for run in variant.finished}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def _adjusted(studies: Sequence[StudyResult]) -> tuple[list[StudyResult], dict[str, int]]:
    """The studies with Holm's p, and the number of tests of each metric: all comparisons of the report in it."""
    family: dict[str, list[float]] = {}
    for study in studies:
        for c in study.comparisons:
            if c.paired is not None and c.paired.p is not None:
                family.setdefault(c.quantity.name, []).append(c.paired.p)
    adjusted = {metric: iter(holm(values)) for metric, values in family.items()}
    done = []
    for study in studies:
        comparisons = [
            replace(c, adjusted=next(adjusted[c.quantity.name])) if c.paired and c.paired.p is not None else c
            for c in study.comparisons
        ]
        done.append(replace(study, comparisons=tuple(comparisons)))
    return done, {metric: len(values) for metric, values in family.items()}


def _latest(runs: Sequence[RunResult]) -> tuple[RunResult, ...]:
    """One run a seed: a later line replaces an earlier one, except a finished run by an unfinished one."""
    found: dict[int, RunResult] = {}
    for run in runs:
        if run.seed not in found or run.status == "ok" or found[run.seed].status != "ok":
            found[run.seed] = run
    return tuple(found[seed] for seed in sorted(found))


def _headline(runs: Sequence[RunResult]) -> Quantity:
    """The first metric of a run's record."""
    return quantity(next((name for run in runs if run.status == "ok" for name in run.metrics), "loss"))
