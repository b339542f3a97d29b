"""The statistics against SciPy's own tests, and against cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mezo.ablation.comparison.statistics import accuracy_error, holm, paired, spread

finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
seeded = st.dictionaries(st.integers(0, 9), finite, max_size=8)


def test_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t quantile 4.3027 with two degrees."""
    found = paired({0: 2.0, 1: 4.0, 2: 6.0, 3: 9.9}, {0: 1.0, 1: 2.0, 2: 3.0, 4: 5.0})
    assert (found.seeds, found.differences, found.mean) == ((0, 1, 2), (1.0, 2.0, 3.0), 2.0)
    assert found.interval == pytest.approx(
        (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), rel=1e-6
    )
    assert found.p == pytest.approx(0.0741799, rel=1e-5)


def test_spread_by_hand() -> None:
    assert spread([1.0, 2.0, 4.0]).mean == 7 / 3
    assert spread([1.0, 2.0, 4.0]).deviation == pytest.approx(math.sqrt(7 / 3), rel=1e-15)
    assert math.isnan(spread([1.0]).deviation)
    assert math.isnan(spread([]).mean)


@given(seeded, seeded)
def test_an_interval_is_that_of_scipy(variant: dict[int, float], baseline: dict[int, float]) -> None:
    found = paired(variant, baseline)
    seeds = sorted(variant.keys() & baseline.keys())
    assert list(found.seeds) == seeds
    if found.interval is None:
        assert found.p is None
        # none is given only where there is nothing to give: too few pairs, or no spread
        scale = max((abs(side[s]) for side in (variant, baseline) for s in seeds), default=0.0)
        assert len(seeds) < 2 or np.std(found.differences, ddof=1) <= 16 * math.ulp(scale)
        return
    test = stats.ttest_rel([variant[s] for s in seeds], [baseline[s] for s in seeds])
    low, high = test.confidence_interval(0.95)
    # differences of numbers up to 1e6 are known to 1e-10; the quantile enlarges that at most 13 times
    assert found.interval == pytest.approx((low, high), rel=1e-9, abs=1e-8)
    assert found.p == pytest.approx(float(test.pvalue), rel=1e-6, abs=1e-12)
    assert (found.interval[0] > 0 or found.interval[1] < 0) == (float(test.pvalue) < 0.05)


def test_what_has_no_interval() -> None:
    one = paired({0: 0.5}, {0: 0.4})
    assert (one.interval, one.p, one.constant) == (None, None, False)
    same = paired({0: 0.2, 1: 0.9}, {0: 0.1, 1: 0.8})  # equal but for the rounding of floats
    assert same.differences[0] != same.differences[1]
    assert (same.interval, same.p, same.constant) == (None, None, True)
    none = paired({0: 1.0, 1: math.nan}, {1: 1.0, 2: math.inf})
    assert none.seeds == ()
    assert math.isnan(none.mean)


def test_holm_by_hand() -> None:
    """Holm 1979: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_by_its_definition(values: list[float]) -> None:
    """The adjusted value of one is the largest of (m - j) p_(j) over those not larger, at most 1."""
    ranked = sorted(values)
    for value, adjusted in zip(values, holm(values), strict=True):
        last = max(j for j, other in enumerate(ranked) if other == value)
        assert adjusted >= min(
            1.0, max((len(values) - j) * ranked[j] for j in range(ranked.index(value) + 1))
        )
        assert adjusted <= min(1.0, max((len(values) - j) * ranked[j] for j in range(last + 1)))
        assert adjusted >= value


def test_the_error_of_an_accuracy() -> None:
    assert accuracy_error(0.5, 100) == 0.05
    assert accuracy_error(1.0, 100) == 0.0
