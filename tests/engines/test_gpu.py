"""What must hold the day a GPU is there: the CPU's losses, and a host that never waits inside a step."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.engines.perturb.test_forward import PROBES, examples
from tests.engines.transformers.test_prefix_tree import shared_batch
from tests.tiny_models import tiny

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.lm_head import Head
from mezo.estimators import TwoPoint
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.tuning import tune

pytestmark = pytest.mark.gpu


def engine_on(device: str, tuning: str) -> TransformersEngine:
    model, weights = tune(tiny("llama").to(device), MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3))
    return TransformersEngine(
        model, weights, OBJECTIVES["candidate-ce"], SGD(), kind="causal", pad_token_id=0
    )


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_losses_are_those_of_the_cpu(tuning: str) -> None:
    batch = shared_batch()
    here, there = (engine_on(device, tuning).logprobs(batch, PROBES) for device in ("cpu", "cuda"))
    # the same perturbed weights; sums in another order, and TF32 is off by default
    np.testing.assert_allclose(there, here, atol=2e-4)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any waiting for the device is an error, but where the losses are read."""
    read = Head.result

    def reading(self: Head, logits: torch.Tensor) -> torch.Tensor:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(self, logits)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    monkeypatch.setattr(Head, "result", reading)
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_step_waits_for_its_losses_alone(tuning: str) -> None:
    engine = engine_on("cuda", tuning)
    for step in range(3):
        if step:  # the first compiles
            torch.cuda.set_sync_debug_mode("error")
        mezo_step(
            engine,
            TwoPoint(1e-3),
            [engine.prepare(examples("causal"))],
            draw_of(0, step, 2),
            1e-6,
        )
