"""dpo, simpo and orpo: trl's formulas on cases by hand, their settings, and what they refuse."""

import math

import numpy as np
import pytest

from mezo.errors import MezoError
from mezo.metrics.preference import preferred
from mezo.objectives import OBJECTIVES, PreferenceObjective, objective_named
from mezo.scoring import Example, pose

PREFERENCES = [name for name, o in OBJECTIVES.items() if isinstance(o, PreferenceObjective)]
# Two rows. Chosen of 2 tokens and of 1, rejected of 1 and of 2; the second has its right candidate last.
EXAMPLES = [
    Example((9,), ((1, 2), (3,)), 0, reference=(-4.0, -1.5)),
    Example((9,), ((4, 5), (6,)), 1, reference=(-2.0, -3.0)),
]
LOGPROBS = np.array([-1.0, -2.0, -1.0, -0.5, -2.5, -2.0])
# sums: chosen -3, rejected -1; chosen -2, rejected -3. Means: -1.5, -1; -2, -1.5.


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


# As trl computes them, with everything put in:
# DPOTrainer, sigmoid:   -logsigmoid(beta * ((pi_c - pi_r) - (ref_c - ref_r)))
#   row 0: (-3 + 1) - (-4 + 1.5) = 0.5      row 1: (-2 + 3) - (-3 + 2) = 2
# CPOTrainer, simpo:     -logsigmoid(beta * ((avg_c - avg_r) - gamma / beta))
#   row 0: -1.5 + 1 = -0.5                  row 1: -2 + 1.5 = -0.5
# ORPOTrainer:           nll - beta * logsigmoid((avg_c - avg_r) - (log1p(-exp(avg_c)) - log1p(-exp(avg_r))))
CASES = [
    ("dpo", -(log_sigmoid(0.05) + log_sigmoid(0.2)) / 2),
    ("dpo", (0.668459648 + 0.598138869) / 2),  # the same in digits
    ("dpo(beta=0.5)", -(log_sigmoid(0.25) + log_sigmoid(1.0)) / 2),
    ("simpo", -log_sigmoid(2 * -0.5 - 1)),
    ("simpo", 2.126928011),
    ("simpo(beta=1.5, gamma=0.25)", -log_sigmoid(1.5 * -0.5 - 0.25)),
    (
        "orpo",
        (1.5 + 2.0) / 2
        - 0.1
        * (
            log_sigmoid(-0.5 - (math.log1p(-math.exp(-1.5)) - math.log1p(-math.exp(-1.0))))
            + log_sigmoid(-0.5 - (math.log1p(-math.exp(-2.0)) - math.log1p(-math.exp(-1.5))))
        )
        / 2,
    ),
]


@pytest.mark.parametrize(("name", "expected"), CASES)
def test_values_by_hand(name: str, expected: float) -> None:
    objective = objective_named(name)
    loss = objective(pose(EXAMPLES), LOGPROBS)  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert type(loss) is float
    # digits written out hold nine places; else some float64 roundings
    assert loss == pytest.approx(expected, rel=1e-9)


def test_orpo_in_digits() -> None:
    # row 0: odds 0.22313 / 0.77687 and 0.36788 / 0.63212: log ratio -0.706193; -log sigmoid = 1.107328
    # row 1: odds 0.13534 / 0.86466 and 0.22313 / 0.77687: log ratio -0.607069; -log sigmoid = 1.042058
    expected = 1.75 + 0.1 * (1.107328 + 1.042058) / 2
    # six places are written out
    assert OBJECTIVES["orpo"](pose(EXAMPLES), LOGPROBS) == pytest.approx(expected, abs=1e-6)


def test_rewards_are_of_the_chosen_and_the_rejected() -> None:
    batch = pose(EXAMPLES)
    found = {}
    for name in PREFERENCES:
        objective = OBJECTIVES[name]
        assert isinstance(objective, PreferenceObjective)
        chosen, rejected = objective.rewards(batch, LOGPROBS)
        found[name] = (chosen - rejected).tolist()
    assert found["dpo"] == pytest.approx([0.05, 0.2])
    assert found["simpo"] == pytest.approx([-1.0, -1.0])
    assert found["orpo"] == pytest.approx([-0.05, -0.05])


def test_at_the_start_dpo_is_log_2_and_undecided() -> None:
    """The tie counts for half: a model that has learned nothing is right by chance."""
    at_start = [Example((9,), ((1,), (2,)), 0, reference=(-1.0, -3.0))] * 3
    batch, logprobs = pose(at_start), np.array([-1.0, -3.0] * 3)
    objective = OBJECTIVES["dpo"]
    assert isinstance(objective, PreferenceObjective)
    chosen, rejected = objective.rewards(batch, logprobs)
    assert preferred(list(chosen - rejected)) == {"preference-accuracy": 0.5, "preference-margin": 0.0}
    assert objective(batch, logprobs) == math.log(2)


@pytest.mark.parametrize("name", PREFERENCES)
def test_an_undefined_score_is_not_hidden(name: str) -> None:
    assert math.isnan(OBJECTIVES[name](pose(EXAMPLES), np.full(6, np.nan)))
    assert math.isnan(preferred([1.0, math.nan])["preference-accuracy"])


@pytest.mark.parametrize("name", PREFERENCES)
def test_values_far_apart_are_finite(name: str) -> None:
    logprobs = np.array([-1000.0, -1000.0, 0.0, 0.0, 0.0, -1000.0])
    assert math.isfinite(OBJECTIVES[name](pose(EXAMPLES), logprobs))


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize(
    "example",
    [
        Example((9,), ((1,),), 0, reference=(-1.0,)),
        Example((9,), ((1,), (2,), (3,)), 0, reference=(-1.0, -1.0, -1.0)),
        Example((9,), ((1,), (2,)), 0, answers=(0, 1), reference=(-1.0, -1.0)),
    ],
)
def test_other_than_two_answers_are_refused(name: str, example: Example) -> None:
    batch = pose([example])
    with pytest.raises(MezoError, match="chosen with a rejected answer") as caught:
        OBJECTIVES[name](batch, np.zeros(len(batch.query_row)))
    assert "\n" not in str(caught.value)


def test_dpo_without_a_start_is_refused() -> None:
    batch = pose([EXAMPLES[0], Example((9,), ((4,), (5,)), 0)])
    assert batch.candidate_reference is None
    with pytest.raises(MezoError, match="simpo or orpo, which need none"):
        OBJECTIVES["dpo"](batch, np.zeros(5))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dpo(beta=0)", "beta to be a number above 0, found 0"),
        ("dpo(beta='x')", "beta to be a number above 0"),
        ("dpo(beta=True)", "beta to be a number above 0"),
        ("simpo(gamma=-1)", "gamma to be a number above 0"),
        ("dpo(gamma=1)", "objective 'dpo' has no setting 'gamma'"),
        ("dpo(name='x')", "objective 'dpo' has no setting 'name'"),
        ("candidate-ce(beta=1)", "has no setting 'beta'"),
        ("dpo(beta=", r"expected NAME\(setting=value"),
    ],
)
def test_settings_are_checked(name: str, said: str) -> None:
    with pytest.raises(MezoError, match=said):
        objective_named(name)
