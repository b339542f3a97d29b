"""Words from numbers: each verdict from numbers that deserve it, and none without its interval."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ablation.made_study import run_line

from mezo.ablation.comparison.comparisons import Results, compare
from mezo.ablation.report.claims import claims, costs, missing, notes, verdict

# Seeds differ by much, pairs by little: what pairing is for.
SHARED = (0.60, 0.70, 0.65)


def study(
    *effects: tuple[float, ...], baseline: tuple[float, ...] = SHARED, metric: str = "accuracy"
) -> Results:
    """A study whose variant n differs from the baseline by effects[n], seed by seed."""
    lines = [run_line(None, "baseline", s, {metric: value}) for s, value in enumerate(baseline)]
    for n, effect in enumerate(effects):
        lines += [
            run_line("S", f"v{n}", s, {metric: baseline[s] + change}) for s, change in enumerate(effect)
        ]
    return compare([{"kind": "study", "name": "S", "ablated_part": "x", "action": "REPLACE"}, *lines])


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        ((-0.10, -0.11, -0.12), "held"),
        ((0.10, 0.11, 0.12), "beaten"),
        ((-0.10, 0.11, 0.02), "inconclusive"),
        ((0.10,), "untested"),
        ((0.25, 0.25, 0.25), "untested"),
    ],
)
def test_a_verdict_follows_from_the_numbers(effect: tuple[float, ...], expected: str) -> None:
    (claim,) = claims(study(effect))
    assert claim.verdict == expected


def test_a_loss_is_better_lower() -> None:
    (claim,) = claims(study((-0.10, -0.11, -0.12), metric="loss"))
    assert claim.verdict == "beaten"
    assert claim.sentence.startswith("Validation loss lower: −0.11")


def test_a_quantity_without_a_better_side_only_differs() -> None:
    results = study((-0.10, -0.11, -0.12), metric="zero_gradient_fraction")
    (found,) = [c for c in results.studies[0].comparisons if c.paired is not None]
    assert verdict(found) == "differs"


def test_many_comparisons_take_a_claim_back() -> None:
    """p is 0.02 alone; among eight of no effect it is 0.16, and the sentence says so."""
    effect, nothing = (-0.08, -0.11, -0.14), (-0.10, 0.11, 0.02)
    assert claims(study(effect))[0].verdict == "held"
    found = claims(study(effect, *[nothing] * 8))[0]
    assert found.verdict == "inconclusive"
    assert "The interval alone excludes 0, but not once all 9 comparisons are counted." in found.sentence


def test_a_difference_below_the_evaluation_sets_own_error_says_so() -> None:
    small, large = (0.010, 0.011, 0.012), (0.20, 0.21, 0.22)
    # 0.65 on 100 examples: sqrt(0.65 * 0.35 / 100) = 4.77 points
    found = claims(study(small, large), 100)
    assert "less than one standard error of the evaluation set (4.77 points)" in found[0].sentence
    assert "standard error" not in found[1].sentence
    assert "standard error" not in claims(study(small), None)[0].sentence
    assert "4.77 points" in " ".join(notes(study(small), 100))


@pytest.mark.parametrize(("seeds", "words"), [(1, "With one seed there is no spread"), (2, "12.7 times")])
def test_few_seeds_are_said_to_be_few(seeds: int, words: str) -> None:
    results = study((0.1, 0.11, 0.12)[:seeds], baseline=SHARED[:seeds])
    assert words in " ".join(notes(results, None))
    assert (claims(results)[0].verdict == "untested") == (seeds == 1)


def test_failures_and_diverged_runs_are_listed() -> None:
    lines = [run_line(None, "baseline", s, {"accuracy": 0.5 + s / 10, "loss": 1.0}) for s in range(2)]
    lines.append(run_line("S", "v", 0, {}, status="failed", error="out of memory"))
    lines.append(run_line("S", "v", 1, {"loss": 1.0, "accuracy": None}))
    results = compare(lines)
    assert missing(results) == [
        ("S", "v", "seed 0 failed: out of memory"),
        ("S", "v", "seed 1: its accuracy is not finite"),
    ]
    assert claims(results)[0].sentence == "Accuracy: no seed that both have."


def test_runs_that_are_not_there_yet_are_listed() -> None:
    lines = [run_line(None, "baseline", s, {"accuracy": 0.5 + s / 10}) for s in range(3)]
    lines += [run_line("S", "v", s, {"accuracy": 0.6 + s / 9}) for s in range(2)]
    results = compare([{"kind": "meta", "seeds": 3}, {"kind": "study", "name": "T"}, *lines])
    assert missing(results) == [
        ("T", "all", "it has no run, or not yet"),
        ("S", "v", "2 of 3 seeds: the others are missing, or not made yet"),
    ]


def test_a_run_done_again_replaces_the_failed_one() -> None:
    base = [run_line(None, "baseline", s, {"accuracy": 0.5 + s / 10}) for s in range(2)]
    failed = run_line("S", "v", 0, {}, status="failed", error="killed")
    done = [run_line("S", "v", s, {"accuracy": 0.6 + s / 9}) for s in range(2)]
    for lines in ([*base, failed, *done], [*base, *done, failed]):
        results = compare(lines)
        assert missing(results) == []
        assert results.studies[0].of_metric("accuracy")[1].spread.count == 2


def test_a_variant_that_is_the_baseline_is_not_compared() -> None:
    lines = [run_line(None, "baseline", s, {"accuracy": 0.5 + s / 10}, key=f"k{s}") for s in range(2)]
    lines += [run_line("S", "the same", s, {"accuracy": 0.5 + s / 10}, key=f"k{s}") for s in range(2)]
    results = compare(lines)
    assert claims(results) == []
    assert results.families == {}
    assert len(results.runs) == 2


effects = st.lists(
    st.lists(st.floats(-0.4, 0.4).map(lambda x: round(x, 4)), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(effects)
def test_no_claim_goes_beyond_its_interval(drawn: list[tuple[float, ...]]) -> None:
    """Whatever the numbers: a direction is named only with an interval that excludes 0 on that side."""
    results = study(*drawn)
    for claim in (*claims(results), *costs(results)):
        found = re.search(r"interval ([−+][\d.]+) to ([−+][\d.]+)", claim.sentence)
        named = re.search(r"Accuracy (higher|lower)", claim.sentence)
        if claim.verdict in ("held", "beaten"):
            assert found is not None
            assert named is not None
            low, high = (float(end.replace("−", "-")) for end in found.groups())
            assert low >= 0 if named[1] == "higher" else high <= 0  # shown rounded: an end may read 0.00
            p = re.search(r"p (?:< )?([\d.e-]+) after adjustment", claim.sentence)
            assert p is not None
            assert float(p[1]) <= 0.05
        else:
            assert named is None
            assert (found is None) == (claim.verdict == "untested")
