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
from mezo.engines.perturb import matmul
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.lm_head import Head
from mezo.estimators import TwoPoint
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.row_directions import RowDirections
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.tuning import tune
from mezo.types import Direction, Update

pytestmark = pytest.mark.gpu


def engine_on(
    device: str, tuning: str = "full", noise: str = "gaussian", dtype: torch.dtype = torch.float32
) -> TransformersEngine:
    config = MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3, noise=noise)
    model, weights = tune(tiny("llama", dtype).to(device), config)
    return TransformersEngine(
        model, weights, OBJECTIVES["candidate-ce"], SGD(), kind="causal", pad_token_id=0
    )


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_losses_are_those_of_the_cpu(tuning: str) -> None:
    batch = shared_batch()
    here, there = (engine_on(device, tuning).logprobs(batch, PROBES) for device in ("cpu", "cuda"))
    # the same perturbed weights; sums in another order, and TF32 is off by default
    np.testing.assert_allclose(there, here, atol=2e-4)


@pytest.mark.parametrize("noise", ["rademacher", "low-rank", "rank-one"])
def test_the_losses_along_other_noise_are_those_of_the_cpu(noise: str) -> None:
    batch = shared_batch()
    here, there = (engine_on(device, noise=noise).logprobs(batch, PROBES) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, atol=2e-4)


def test_a_direction_for_every_row_has_the_losses_and_the_step_of_the_cpu() -> None:
    batch, found = examples("causal")[:4], []
    for device in ("cpu", "cuda"):
        engine = engine_on(device, noise="rank-one")
        update, losses, _ = mezo_step(
            engine, ExactSums(RowDirections(TwoPoint(1e-2))), [batch], draw_of(0, 0, 4), 1e-4
        )
        found.append((losses, len(update.directions)))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=2e-4)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("noise", ["gaussian", "rademacher", "low-rank", "rank-one"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_slopes_lead_to_the_bytes_of_the_cpu(noise: str, dtype: torch.dtype) -> None:
    sums = set()
    for device in ("cpu", "cuda", "cuda"):
        engine = engine_on(device, noise=noise, dtype=dtype)
        for step in range(3):
            engine.apply(Update(step, 1e-3, (Direction(step, 0.5), Direction(step + 9, -3.0)), 2))
        sums.add(engine.weights.checksum())
    assert len(sums) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_of_16_bits_have_sums_of_float32(dtype: torch.dtype) -> None:
    """Either torch has them, and they are those of widened operands but for their order, or they are not used."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 256, generator=generator).to(dtype).cuda() for n in (40, 300))
    if matmul.has_wide_products(x, weight):
        found = matmul.wide_product(x, weight)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.cpu(), x.cpu().float() @ weight.cpu().float().t(), rtol=1e-5, atol=1e-4
        )


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
@pytest.mark.parametrize(
    ("tuning", "noise"),
    [("full", "gaussian"), ("lora", "gaussian"), ("full", "low-rank"), ("full", "rank-one")],
)
def test_a_step_waits_for_its_losses_alone(tuning: str, noise: str) -> None:
    engine = engine_on("cuda", tuning, noise)
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
