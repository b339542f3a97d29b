"""The budget is divided as it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.ablation.binding.case import Case
from mezo.ablation.run.cases import (
    BASELINE,
    Cost,
    Equal,
    budget_words,
    by_minutes,
    by_passes,
    distinct,
    run_of,
    scaled,
)
from mezo.config import MeZOConfig
from mezo.errors import MezoError

BASE = MeZOConfig(num_steps=120, warmup_steps=12, device="cpu")


def cases(*changes: dict) -> list[Case]:
    variants = [
        Case("study", str(n), change, MeZOConfig.build(**{**BASE.model_dump(), **change}))
        for n, change in enumerate(changes)
    ]
    return [Case(None, BASELINE, {}, BASE), *variants]


DIRECTIONS = cases({"num_directions": 2}, {"num_directions": 4}, {"estimator": "one-point"})
PASSES = [2.0, 4.0, 8.0, 1.0]
COSTS = st.lists(st.builds(Cost, *[st.floats(1e-3, 10)] * 3, passes=st.floats(1, 64)), min_size=4, max_size=4)


def test_equal_passes_are_equal() -> None:
    costs = {case.key: Cost(1, 1, 1, p) for case, p in zip(DIRECTIONS, PASSES, strict=True)}
    assert list(by_passes(DIRECTIONS, 120, costs).values()) == [120, 60, 30, 240]


def test_a_step_of_many_passes_is_still_made() -> None:
    two = cases({"num_directions": 500})
    costs = {two[0].key: Cost(1, 1, 1, 2), two[1].key: Cost(1, 1, 1, 1000)}
    assert by_passes(two, 120, costs)[two[1].key] == 1


@given(COSTS, st.floats(1, 1e4), st.integers(1, 5), st.integers(1, 4), st.integers(2, 12))
def test_equal_minutes_are_used_up_and_not_overrun(
    costs: list[Cost], minutes: float, seeds: int, at_once: int, evaluations: int
) -> None:
    known = {case.key: cost for case, cost in zip(DIRECTIONS, costs, strict=True)}
    share = 60 * minutes / math.ceil(4 * seeds / at_once)
    try:
        found = by_minutes(DIRECTIONS, seeds, minutes, known, at_once=at_once, evaluations=evaluations)
    except MezoError as error:
        assert max(c.seconds(1, evaluations) for c in costs) > share * (1 - 1e-9)
        assert "give more than" in str(error)  # noqa: PT017
        return
    for case in DIRECTIONS:
        cost, steps = known[case.key], found[case.key]
        # Seconds of up to 6e5 are summed and divided: relative roundings of 2^-53, well below 1e-9.
        assert cost.seconds(steps, evaluations) <= share * (1 + 1e-9)
        assert cost.seconds(steps + 1, evaluations) > share * (1 - 1e-9)


def test_cases_of_equal_settings_count_once() -> None:
    assert distinct(cases({}, {"epsilon": 0.5}, {"epsilon": 0.5})) == 2


@pytest.mark.parametrize(
    ("equal", "minutes", "steps", "said"),
    [
        ("steps", None, [120, 120], "120 steps for each run; variants"),
        ("passes", None, [120, 60], "as the baseline has in 120 steps: 60 to 120 steps"),
        (
            "steps",
            5.0,
            [120, 90],
            "5 minutes in all, the same time for each run: 120 steps of the baseline, 90 to 120",
        ),
    ],
)
def test_the_budget_in_words(equal: Equal, minutes: float | None, steps: list[int], said: str) -> None:
    two = cases({"num_directions": 2})
    counts = {case.key: count for case, count in zip(two, steps, strict=True)}
    assert said in budget_words(two, counts, equal, minutes)


# ---------------------------------------------------------------- a case's runs


def test_seeds_steps_and_what_shrinks_with_them() -> None:
    run = run_of(cases({"epsilon": 0.5})[1], 2, 60, None)
    assert (run.config.seed, run.config.num_steps, run.config.epsilon) == (2, 60, 0.5)
    assert run.config.warmup_steps == 6  # a tenth of the run, as it was
    assert run.config.eval_every == 6
    assert run_of(cases({})[0], 0, 61, None).config.eval_every == 7  # ten evaluations at most
    assert run_of(cases({})[0], 0, 61, 20).config.eval_every == 20


def test_a_plan_may_vary_the_budget_itself() -> None:
    run = run_of(cases({"num_steps": 30, "warmup_steps": 3})[1], 0, 120, None)
    assert (run.config.num_steps, run.config.warmup_steps, run.config.eval_every) == (30, 3, 3)


def test_equal_configs_are_one_run_and_others_are_not() -> None:
    same, other = cases({"epsilon": BASE.epsilon}, {"epsilon": 0.5})[1:]
    baseline = DIRECTIONS[0]
    assert run_of(same, 0, 9, None).key == run_of(baseline, 0, 9, None).key
    assert len({run_of(c, n, 9, None).key for c in (baseline, other) for n in range(3)}) == 6


def test_a_variants_cost_follows_from_its_passes_and_examples() -> None:
    base = MeZOConfig(num_steps=10)
    cost = Cost(step=1.0, fixed=5.0, evaluation=2.0, passes=2.0)
    four = scaled(cost, base, base.model_copy(update={"num_directions": 4}))
    assert four == Cost(step=4.0, fixed=5.0, evaluation=2.0, passes=8.0)
    half = scaled(cost, base, base.model_copy(update={"batch_size": 32, "estimator": "one-point"}))
    assert half.step == 0.25
