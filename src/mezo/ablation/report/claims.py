"""The numbers in words: what held, what did not, what is inconclusive at this budget.

Every comparison is given with its interval. A claim needs an interval that excludes 0 and a p-value below 0.05 after
Holm's adjustment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mezo.ablation.comparison.comparisons import Comparison, Results, StudyResult
from mezo.ablation.comparison.statistics import LEVEL, accuracy_error

Verdict = Literal["held", "beaten", "differs", "inconclusive", "untested"]
_LEVEL = f"{100 * LEVEL:.0f} %"
_COSTS = ("peak_memory_gb", "device_memory_gb", "train_seconds", "device_hours", "forward_passes")


@dataclass(frozen=True, slots=True)
class Claim:
    """One comparison in words."""

    study: str
    variant: str
    verdict: Verdict
    sentence: str


def verdict(comparison: Comparison) -> Verdict:
    """What the numbers say of one variant in one metric.

    held: the variant is worse. beaten: it is better. differs: the metric has no better side. inconclusive: the interval
    includes 0, or the adjusted p is too large. untested: no interval.
    """
    found = comparison.paired
    if found is None or found.interval is None or comparison.adjusted is None:
        return "untested"
    if comparison.adjusted >= 1 - LEVEL:
        return "inconclusive"
    better = comparison.quantity.better
    if better is None:
        return "differs"
    return "beaten" if (found.mean > 0) == (better == "higher") else "held"


def claims(results: Results, examples: int | None = None) -> list[Claim]:
    """One for each variant in the headline metric. examples: of the evaluation set; None: not known."""
    error = _evaluation_error(results, examples)
    return [
        _claim(study, c, results, error)
        for study in results.studies
        for c in study.of_metric(results.headline.name)
        if c.paired is not None
    ]


def costs(results: Results) -> list[Claim]:
    """The differences in memory, time and passes that remain after the adjustment."""
    return [
        _claim(study, c, results, None)
        for study in results.studies
        for c in study.comparisons
        if c.quantity.name in _COSTS and verdict(c) in ("held", "beaten", "differs")
    ]


def missing(results: Results) -> list[tuple[str, ...]]:
    """(study, variant, why) of what was planned and has no number, or not with every seed."""
    found = []
    planned, headline = results.meta.get("seeds", 0), results.headline
    for study in results.studies:
        if len(study.variants) == 1 and planned:
            found.append((study.name, "all", "it has no run, or not yet"))
        for variant in study.variants:
            whys = []
            for run in variant.runs:
                if run.status != "ok":
                    whys.append(f"seed {run.seed} {run.status}{f': {run.error}' if run.error else ''}")
                elif headline.name not in run.metrics:
                    whys.append(f"seed {run.seed}: its {headline.title.lower()} is not finite")
            if len(variant.runs) < planned:
                count = f"{len(variant.runs)} of {planned} seeds"
                whys.append(f"{count}: the others are missing, or not made yet")
            found += [(study.name, variant.label, why) for why in whys]
    return list(dict.fromkeys(found))


def difference(comparison: Comparison) -> str:
    """`-3.20 points (95 % interval -4.10 to -2.30; p 0.012 after adjustment; 3 seeds)`, or why there is no interval."""
    found, metric = comparison.paired, comparison.quantity
    if found is None or not found.differences:
        return "no seed that both have"
    seeds = f"{len(found.seeds)} seeds"
    if found.constant:
        why = f"the same difference in all {seeds}, so no interval"
    elif found.interval is None:
        why = "one seed, so no interval"
    else:
        low, high = (metric.value(end, sign=True) for end in found.interval)
        p = "" if comparison.adjusted is None else f"; p {p_value(comparison.adjusted)} after adjustment"
        why = f"{_LEVEL} interval {low} to {high}{p}; {seeds}"
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    return f"{metric.value(found.mean, sign=True)}{unit} ({why})"


def p_value(p: float) -> str:
    """Two significant digits; below 0.001 only that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def notes(results: Results, examples: int | None) -> Iterator[str]:
    """How the numbers were made, and what they can show: a sentence each. examples: of the evaluation set."""
    seeds = results.seeds
    yield (
        f"{len(results.runs)} runs; seeds: {', '.join(map(str, seeds)) or 'none'}. Each variant is compared"
        f" with the baseline seed by seed; intervals are Student's t on these differences, {_LEVEL}"
        " for each comparison taken alone."
    )
    if len(seeds) == 1:
        yield "With one seed there is no spread to judge a difference by: nothing below is a finding."
    elif len(seeds) == 2:
        yield (
            "With two seeds an interval reaches 12.7 times as far from the mean as the two differences do:"
            " few differences can be told from 0."
        )
    if family := results.families.get(results.headline.name):
        title = results.headline.title
        yield (
            f"p-values are adjusted by Holm's method for all comparisons of the report in one metric:"
            f" {family} in {title if title.isupper() else title.lower()}. A difference is called one only where the"
            f" adjusted p is below {1 - LEVEL:.2g}; the interval of a single comparison can exclude 0 without that."
        )
    if (error := _evaluation_error(results, examples)) is not None:
        yield (
            f"All runs are judged on the same {examples:,} examples. One standard error of the baseline's accuracy"
            f" for the draw of these examples is {100 * error:.2f} points; the intervals are about seeds and do"
            " not contain it, so they hold for this evaluation set."
        )
    if (jobs := results.meta.get("jobs", 1)) > 1:
        yield f"{jobs} runs at a time shared the machine: their times include that."


def _claim(study: StudyResult, c: Comparison, results: Results, error: float | None) -> Claim:
    found, metric, pair = verdict(c), c.quantity, c.paired
    title, more = metric.title, ""
    if found == "inconclusive" and pair is not None and pair.interval is not None:
        low, high = pair.interval
        if low > 0 or high < 0:
            family = results.families[metric.name]
            more = f" The interval alone excludes 0, but not once all {family} comparisons are counted."
    elif found != "untested" and pair is not None:
        title += " higher" if pair.mean > 0 else " lower"
        if error is not None and abs(pair.mean) < error:
            more = (
                f" That is less than one standard error of the evaluation set ({100 * error:.2f} points):"
                " other examples may show none."
            )
    return Claim(study.name, c.variant, found, f"{title}: {difference(c)}.{more}")


def _evaluation_error(results: Results, examples: int | None) -> float | None:
    """One standard error of the baseline's accuracy (0 to 1) for the draw of the evaluation set; None if not known."""
    baseline = [c for study in results.studies for c in study.of_metric("accuracy") if c.paired is None]
    if results.headline.name != "accuracy" or not examples or not baseline or not baseline[0].spread.count:
        return None
    return accuracy_error(baseline[0].spread.mean, examples)
