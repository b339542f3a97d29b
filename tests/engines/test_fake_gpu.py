"""What a step asks of a GPU, counted without one: nothing that the host would wait for, and a table where one does."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.engines.fake_gpu import fake_gpu, on_fake
from tests.engines.perturb.test_forward import examples
from tests.tiny_models import tiny

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.form import Form
from mezo.estimators import Estimator, TwoPoint
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.row_directions import RowDirections
from mezo.objectives import OBJECTIVES
from mezo.optimizers import OPTIMIZERS
from mezo.tuning import tune
from mezo.weights.weights import Weights

CASES: dict[str, dict[str, Any]] = {
    "full": dict(tuning="full"),
    "lora": dict(tuning="lora"),
    "bfloat16": dict(tuning="full", dtype=torch.bfloat16),
    "momentum": dict(tuning="full", optimizer="momentum"),
    "adam": dict(tuning="lora", optimizer="adam"),
    "low-rank": dict(tuning="full", noise="low-rank"),
    "rank-one": dict(tuning="full", noise="rank-one"),
    "rows": dict(tuning="full", noise="rank-one", rows=4),
}


def counted(
    patch: pytest.MonkeyPatch,
    *,
    name: str = "llama",
    tuning: str = "full",
    dtype: torch.dtype = torch.float32,
    optimizer: str = "sgd",
    noise: str = "gaussian",
    rows: int = 0,
) -> Counter[str]:
    """What the third step launches; the first two may set up what later ones keep."""
    batch = examples("causal")[: rows or 4]
    config = MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3, noise=noise)
    model, weights = tune(tiny(name, dtype), config)

    def engine_with(weights: Weights) -> TransformersEngine:
        rule = OPTIMIZERS[optimizer]()
        return TransformersEngine(
            model, weights, OBJECTIVES["candidate-ce"], rule, kind="causal", pad_token_id=0
        )

    form = engine_with(weights).form  # as numbers allow it
    with fake_gpu(patch, form) as launches:
        engine = engine_with(on_fake(model, weights))
        estimator: Estimator = TwoPoint(1e-3)
        if rows:  # a direction for each
            estimator = ExactSums(RowDirections(estimator))
        for step in range(3):
            launches.count.clear()
            launches.strict = step > 0
            draw = draw_of(0, step, len(batch) if rows else 1)
            mezo_step(engine, estimator, [engine.prepare(batch)], draw, 1e-6)
        return launches.count


@pytest.mark.parametrize("case", CASES)
def test_the_host_waits_for_nothing_but_losses(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(monkeypatch, **CASES[case]).total() > 100


def noise_of(found: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in found.items() if name.startswith("noise.")}


def test_an_adapter_is_perturbed_and_moved_in_one_launch_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise_of(counted(monkeypatch, tuning="lora")) == {"noise.perturb_all": 1, "noise.update_all_": 1}


def test_a_matrix_costs_a_launch_for_both_signs_and_all_are_moved_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # of each layer seven matrices, one of which is small here as gains are; the table of the tokens, and the head
    found = noise_of(counted(monkeypatch))
    assert found["noise.update_all_"] == 1
    assert found["noise.perturb_all"] == 1
    assert set(found) <= {"noise.update_all_", "noise.perturb_all", "noise.perturb"}


def test_rows_with_directions_of_their_own_cost_no_launch_each(monkeypatch: pytest.MonkeyPatch) -> None:
    two, four = (noise_of(counted(monkeypatch, noise="rank-one", rows=n)) for n in (2, 4))
    assert two == four


# ------------------------------------------------------------------ that it would be seen

Wait = Callable[[torch.Tensor], object]
WAITS: dict[str, Wait] = {
    "a number": lambda x: x.sum().item(),
    "a truth": lambda x: bool(x.any()),
    "a list": lambda x: x.tolist(),
    "a mask": lambda x: x[x > 0],
    "places": lambda x: x.nonzero(),
    "distinct values": lambda x: x.unique(),
    "a copy to it": lambda x: torch.zeros(3).to(x.device),
    "a tensor made there of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a copy from it": lambda x: x.cpu(),
}


@pytest.mark.parametrize("wait", WAITS)
def test_what_would_wait_is_refused(wait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch, Form()) as launches:
        x = torch.ones(4, device="cuda")
        launches.strict = True
        with pytest.raises((AssertionError, RuntimeError)):
            WAITS[wait](x)
