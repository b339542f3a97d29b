"""Probes along low-rank directions against the plainest reading: write theta + eps z, run the model, compare."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engines.perturb.test_forward import PROBES, examples
from tests.tiny_models import ARCHITECTURES, MASKED, same_files, tiny
from tests.toys import byte_tokenizer
from torch import nn

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.transformers import generate
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import TwoPoint
from mezo.objectives import OBJECTIVES
from mezo.optim import MeZO
from mezo.optimizers import SGD
from mezo.resume.replay import replay
from mezo.scoring import pose
from mezo.training.trainer import MeZOTrainer
from mezo.tuning import tune
from mezo.types import THETA, Probe
from mezo.weights import low_rank_noise
from mezo.weights.weights import Weights

# two float32 forward passes of two layers that sum in another order: relative 1e-6 of logits of order 10
CLOSE = 2e-5


def engine_for(
    name: str, tuning: str = "full", dtype: torch.dtype = torch.float32, rank: int = 2, **options: object
) -> TransformersEngine:
    config = MeZOConfig.build(tuning=tuning, lora_rank=32, seed=3, noise="low-rank", noise_rank=rank)
    model, weights = tune(tiny(name, dtype), config)
    if tuning == "lora":  # B starts at zero: move it, or A's noise is never seen
        weights.add_noise_(Probe(1, 0.1))
    return TransformersEngine(
        model,
        weights,
        OBJECTIVES["candidate-ce"],
        SGD(),
        kind="masked" if name in MASKED else "causal",
        pad_token_id=0,
        **options,  # type: ignore[arg-type]
    )


def reference(engine: TransformersEngine, batch, probe: Probe) -> np.ndarray:
    """Every query on its own row, unpadded, by the model's own forward at theta + scale z written out."""
    theta = [t.tensor.detach().clone() for t in engine.weights.tunables]
    engine.weights.add_noise_(probe)  # tests/weights/test_low_rank_noise.py has what that is
    with torch.no_grad():
        tables = [
            engine.model(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
            for row in batch.rows
        ]
    asked = zip(batch.query_row, batch.query_position, batch.query_token, strict=True)
    found = np.array([float(tables[row][position, token]) for row, position, token in asked])
    for t, data in zip(engine.weights.tunables, theta, strict=True):
        t.tensor.data.copy_(data)
    return found


@pytest.mark.parametrize(
    ("name", "tuning"), [*((name, "full") for name in ARCHITECTURES), ("llama", "lora"), ("gpt2", "lora")]
)
def test_stacked_probes_equal_writing_theta(name: str, tuning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(name, tuning, rank=3 if name == "llama" else 2)
    assert engine.form.stacked, "every probe in one pass, for every architecture we promise"
    assert any(t.low_rank for t in engine.weights.tunables)
    before, batch = engine.weights.checksum(), pose(examples(engine.kind))
    with monkeypatch.context() as patch:  # no matrix is perturbed: that of a LoRA factor and a table included
        patch.setattr(
            "mezo.weights.low_rank_noise.LowRank.perturb", lambda *args: pytest.fail("a weight was made")
        )
        found = engine.logprobs(batch, PROBES)
    assert engine.weights.checksum() == before
    for probe, row in zip(PROBES, found, strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=CLOSE)
    assert np.abs(found[0] - found[1]).max() > 1e-3, "the probes did differ"


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "bert"])
def test_one_sided_probes_and_single_layers(name: str) -> None:
    engine = engine_for(name)
    batch, layers = pose(examples(engine.kind)), list(engine.weights.layers().values())
    probes = [THETA, Probe(5, 1e-2), Probe(5, 1e-2, layers[1]), Probe(5, -1e-2, layers[-1]), Probe(6, -1e-2)]
    for probe, row in zip(probes, engine.logprobs(batch, probes), strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=CLOSE)


def test_heads_in_vocabulary_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama-tied", "roberta"):  # the latter's has a bias
        engine = engine_for(name)
        batch = pose(examples(engine.kind))
        expected = engine.logprobs(batch, PROBES)
        with monkeypatch.context() as patch:
            patch.setattr("mezo.engines.transformers.lm_head.block_elements", lambda weight: 32 * 7)
            np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_probes_are_those_of_the_float32_model(dtype: torch.dtype) -> None:
    """The perturbation is not rounded to the weights' grid: at an epsilon far below it, it is still there."""
    engine, wide = engine_for("llama", dtype=dtype), engine_for("llama")
    for t, w in zip(engine.weights.tunables, wide.weights.tunables, strict=True):
        w.tensor.data.copy_(t.tensor)
    before, batch = engine.weights.checksum(), pose(examples("causal"))
    found, expected = engine.logprobs(batch, PROBES), wide.logprobs(batch, PROBES)
    assert engine.weights.checksum() == before
    # activations are rounded to 2^-8 and 2^-11 of themselves, which reach logits of order 10
    np.testing.assert_allclose(found, expected, atol=0.5 if dtype == torch.bfloat16 else 0.1)
    slopes, true = (v[0] - v[1] for v in (found, expected))
    assert np.corrcoef(slopes, true)[0, 1] > 0.9


def test_the_walk_in_place_finds_the_same_losses_and_comes_back() -> None:
    batch = pose(examples("causal"))
    engine = engine_for("opt", memory="regenerate")
    before = torch.cat([t.tensor.flatten() for t in engine.weights.tunables])
    found = engine.logprobs(batch, PROBES)
    np.testing.assert_allclose(found, engine_for("opt").logprobs(batch, PROBES), atol=2e-4)
    after = torch.cat([t.tensor.flatten() for t in engine.weights.tunables])
    # four walks of three steps, each rounded to half a unit in the last place of weights below 2
    assert float((after - before).abs().max()) <= 12 * 2**-24 * 2


def test_copies_for_generation_are_the_probe() -> None:
    engine = engine_for("llama-tied")
    expected = engine_for("llama-tied")
    expected.weights.add_noise_(PROBES[0])
    before = engine.weights.checksum()
    with generate.at(engine.model, engine.weights, PROBES[0]):
        inside = dict(engine.model.named_parameters())
        for name, parameter in expected.model.named_parameters():
            assert torch.equal(inside[name], parameter)
    assert engine.weights.checksum() == before


def test_slopes_are_those_of_the_gradient() -> None:
    """(l+ - l-) / 2 eps = <gradient, z>, the gradient by backpropagation."""
    engine = engine_for("llama")
    batch, eps = pose(examples("causal")), 1e-3
    tensors = [t.tensor.requires_grad_(True) for t in engine.weights.tunables]
    loss, queries = (
        torch.zeros(()),
        zip(batch.query_row, batch.query_position, batch.query_token, strict=True),
    )
    tables = [engine.model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in batch.rows]
    for row, position, token in queries:
        loss = loss + tables[row][position, token]
    gradient = torch.autograd.grad(loss, tensors)
    engine.model.requires_grad_(False)
    for seed in range(5):
        zeros = engine.weights.zeros()
        zeros.add_noise_(Probe(seed, 1.0))
        slope = sum(float((g * z.tensor).sum()) for g, z in zip(gradient, zeros.tunables, strict=True))
        plus, minus = engine.logprobs(batch, [Probe(seed, eps), Probe(seed, -eps)]).sum(-1)
        # float32 logits of order 10 are off by 1e-6, some 20 of them, over 2 eps; and eps^2 of curvature
        assert abs((plus - minus) / (2 * eps) - slope) < 0.02 * abs(slope) + 0.05


def test_steps_repeat_and_replay_bit_for_bit() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        engine, other = engine_for("llama-tied", dtype=dtype), engine_for("llama-tied", dtype=dtype)
        for step in range(3):
            draw = draw_of(9, step, 2)
            update, _, _ = mezo_step(engine, TwoPoint(1e-2), [examples("causal")], draw, 1e-3)
            other.apply(update)
            assert engine.weights.checksum() == other.weights.checksum()
        found.append(engine.weights.checksum())
    assert len({*found, engine_for("llama-tied").weights.checksum()}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_a_run_replays_to_the_same_bytes(tmp_path: Path, normalize: bool) -> None:
    tiny("llama", torch.bfloat16).save_pretrained(tmp_path / "base")
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(tmp_path / "base")
    config = MeZOConfig.build(
        model=str(tmp_path / "base"),
        task="sst2",
        dtype="bfloat16",
        noise="low-rank",
        noise_rank=3,
        normalize_perturbations=normalize,
        batch_size=2,
        num_steps=5,
        num_directions=2,
        learning_rate=1e-3,
        weight_decay=0.01,
    )
    rows = MeZODataset([{"sentence": s, "label": int(s < "h")} for s in ("get", "him", "god")], task="sst2")
    MeZOTrainer(config, train=rows, validation=rows, output=tmp_path / "run").train()
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)


def test_walks_with_and_without_stored_noise_have_the_same_bits() -> None:
    """Although the walk that stores z scales it as it is, and the other makes it anew."""
    found = set()
    for memory in ("regenerate", "store", "store-layer"):
        engine = engine_for("llama-tied", dtype=torch.bfloat16, memory=memory)
        for step in range(2):
            mezo_step(engine, TwoPoint(1e-2), [examples("causal")], draw_of(9, step, 2), 1e-3)
        found.add(engine.weights.checksum())
    assert len(found) == 1


class Odd(nn.Module):
    """Reads its matrices in ways that no handler knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(40, 40) / 6)
        self.inner = nn.Linear(40, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x) @ self.weight.sin()) + x @ self.inner.weight.cos()


def test_modules_that_no_one_foresaw_are_given_the_perturbed_weight() -> None:
    x, model, written = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)), Odd(), Odd()
    opt = MeZO(model, lr=0.0, eps=1e-2, noise="low-rank")
    seen: list[torch.Tensor] = []

    def loss() -> float:
        seen.append(model(x).detach())
        return float(seen[-1].square().mean())

    opt.step(loss)
    weights = Weights(written.named_parameters(), kind="low-rank")
    for out, sign in zip(seen[-2:], (1, -1), strict=True):
        theta = [t.tensor.detach().clone() for t in weights.tunables]
        weights.add_noise_(Probe(draw_of(0, 0, 1).seeds[0], sign * 1e-2))
        torch.testing.assert_close(out, written(x).detach(), rtol=1e-5, atol=1e-5)
        for t, data in zip(weights.tunables, theta, strict=True):
            t.tensor.data.copy_(data)


def test_it_descends_at_the_learning_rate_of_gaussian_noise() -> None:
    last: dict[low_rank_noise.Kind, float] = {}
    kinds: tuple[low_rank_noise.Kind, ...] = ("gaussian", "low-rank")
    for kind in kinds:
        torch.manual_seed(0)
        model, x = nn.Linear(32, 32), torch.randn(64, 32)
        target = x @ torch.randn(32, 32) / 6

        def loss(model: nn.Module = model, x: torch.Tensor = x, target: torch.Tensor = target) -> float:
            return float((model(x) - target).detach().square().mean())

        first = loss()
        opt = MeZO(model, lr=0.01, eps=1e-3, noise=kind)
        for _ in range(1500):
            opt.step(loss)
        last[kind] = loss() / first
    assert max(last.values()) < 0.5
    assert abs(last["low-rank"] - last["gaussian"]) < 0.1
