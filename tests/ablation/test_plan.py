"""What a plan is."""

import datetime

import pytest

from mezo.ablation.plans.plan import MOST_VALUES, Plan
from mezo.errors import MezoError

STUDY = {"name": "x", "ablated_part": "p", "action": "ADD"}


def test_studies_of_one_name_are_told_apart() -> None:
    plan = Plan.build(studies=[STUDY, {**STUDY, "name": "x (2)"}, STUDY, STUDY])
    assert [study.name for study in plan.studies] == ["x", "x (2)", "x (3)", "x (4)"]


def test_values_become_plain() -> None:
    odd = [datetime.date(2023, 5, 1), (1,), "half \ud800"]
    plan = Plan.build(studies=[{**STUDY, "replacement": odd, "n": {1: 2}}])
    assert plan.studies[0].replacement == ["2023-05-01", [1], "half \ufffd"]
    assert plan.studies[0].model_extra == {"n": {"1": 2}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"action": "MEND"}, "study 1, action: expected REMOVE, REPLACE or ADD, found 'MEND'"),
        ({"name": " "}, "study 1, name: expected some text"),
        ({"replacement": [float("nan")]}, "expected a finite number, found nan"),
        ({"replacement": [object()]}, "found object"),
        ({"replacement": [0] * MOST_VALUES}, f"at most {MOST_VALUES} values"),
        ({"replacement": "a"}, "replacement"),
    ],
)
def test_mistakes_are_told_in_one_line(changes: dict[str, object], told: str) -> None:
    with pytest.raises(MezoError, match=told) as error:
        Plan.build(studies=[{**STUDY, **changes}])
    assert "\n" not in str(error.value)


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(MezoError, match="study 2, ablated_part: expected this field, found none"):
        Plan.build(studies=[STUDY, {"name": "y", "action": "ADD"}])
    with pytest.raises(MezoError, match="expected at least one study"):
        Plan.build(studies=[])
