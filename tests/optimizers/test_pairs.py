"""Every estimator with every optimizer descends on two problems, and a replay gives the same bits."""

import pytest
from tests.problems import PROBLEMS, RATE, RATES, config_for, descend, replayed
from tests.tiers import mostly_slow

from mezo.estimators import ESTIMATORS
from mezo.optimizers import OPTIMIZERS

STEPS = 150
# Adam and muon divide by the size of the slopes: for a step of the same length, their rate is that many times SGD's.
# They are of order 3; the one-point estimator's, mostly noise, of order 6; signs and scaled slopes of order 1.
ADAM = {"one-point": 6.0, "sign": 1.0, "fzoo": 1.0, "es": 1.0}
# cone's directions hang on m as it was at their step, so past ones cannot be made again
PAIRS = [(e, o) for e in ESTIMATORS for o in OPTIMIZERS if not (e == "cone" and o.endswith("rebuilt"))]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("estimator", "optimizer"), mostly_slow(PAIRS, lambda e, o: e == "two-point" or o == "sgd")
)
def test_descends_and_replays(estimator: str, optimizer: str, problem: str) -> None:
    rate = RATES.get(estimator, RATE) * (
        ADAM.get(estimator, 3.0) if optimizer.startswith(("adam", "muon")) else 1.0
    )
    config = config_for(
        estimator=estimator, optimizer=optimizer, learning_rate=rate, num_steps=STEPS, history=8
    )
    run = descend(config, PROBLEMS[problem])
    assert run.last < 0.9 * run.first
    assert replayed(run).checksum() == run.weights.checksum()
