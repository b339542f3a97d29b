"""The engine against the plainest possible reading: write theta + eps z, run the model, compare."""

import copy
import math

import numpy as np
import pytest
import torch
from tests.tiny_models import ARCHITECTURES, MASKED, VOCABULARY, tiny

from mezo import noise
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.noise.where import Where
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import Example, pose
from mezo.tuning import tune
from mezo.types import Direction, Probe, Update

PROBES = [Probe(7, 1e-2), Probe(7, -1e-2), Probe(2**63 + 5, 1e-2), Probe(2**63 + 5, -1e-2)]


def examples(kind: str) -> list[Example]:
    """Prompts of different lengths; candidates of different lengths that share tokens (causal)."""
    drawn = np.random.RandomState(0)
    out = []
    for length in (5, 11, 3, 8, 8):
        prompt = tuple(int(t) for t in drawn.randint(4, VOCABULARY, length))
        if kind == "masked":
            out.append(Example(prompt, ((20,), (30,)), 1, mask_position=length - 2))
        else:
            out.append(Example(prompt, ((20,), (30, 31, 32), (30, 33)), 1))
    return out


def engine_for(name: str, tuning: str = "full", dtype: torch.dtype = torch.float32, **options: object):
    model = tiny(name, dtype)
    config = MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3)
    tuned, weights = tune(model, config)
    engine = TransformersEngine(
        tuned,
        weights,
        OBJECTIVES["candidate-ce"],
        SGD(),
        kind="masked" if name in MASKED else "causal",
        pad_token_id=0,
        **options,  # type: ignore[arg-type]
    )
    return engine, weights


def reference(engine: TransformersEngine, batch, probe: Probe) -> np.ndarray:
    """Every query on its own row, unpadded, by the model's own forward at theta + scale z written out."""
    theta = [t.tensor.detach().clone() for t in engine.weights.tunables]
    factors = probe.scaling.factors if probe.scaling else (1.0,) * len(theta)
    for t, factor in zip(engine.weights.tunables, factors, strict=True):
        z = torch.empty(1, t.tensor.numel())
        noise.fill_(z, Where(t.tensor_id), probe.seed)
        shifted = t.tensor.float() + torch.tensor(probe.scale * factor, dtype=torch.float32) * z.view(
            t.tensor.shape
        )
        t.tensor.data.copy_(shifted.to(t.tensor.dtype))
    out = []
    with torch.no_grad():
        tables = [
            engine.model(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
            for row in batch.rows
        ]
    for row, position, token in zip(batch.query_row, batch.query_position, batch.query_token, strict=True):
        out.append(float(tables[row][position, token]))
    for t, data in zip(engine.weights.tunables, theta, strict=True):
        t.tensor.data.copy_(data)
    return np.array(out)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stacked_probes_equal_writing_theta(name: str, tuning: str) -> None:
    engine, weights = engine_for(name, tuning)
    if tuning == "lora":  # B starts at zero: move it, or A's noise is never seen
        weights.update_([1], [0.1])
    assert engine.form.stacked, "every probe in one pass, for every architecture we promise"
    before = weights.checksum()
    batch = pose(examples(engine.kind))
    found = engine.logprobs(batch, PROBES)
    assert weights.checksum() == before
    # two float32 forward passes of two layers that sum in another order: relative 1e-6 of logits of order 10
    for probe, row in zip(PROBES, found, strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3, "the probes did differ"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layouts_are_the_fast_ones_where_they_should_be(name: str) -> None:
    engine, _ = engine_for(name)
    assert engine.form.packed == (name != "gemma2-softcap")  # its soft-capped attention is not sdpa
    assert engine.form.whole_head == (name == "gemma2-softcap")
    if name == "mistral-window":
        assert engine.form.pack_limit == 16


def test_rows_longer_than_the_window_are_not_packed() -> None:
    engine, _ = engine_for("mistral-window")
    long = Example(tuple(range(10, 40)), ((20,), (30,)), 0)
    batch = pose([long, *examples("causal")])
    np.testing.assert_allclose(engine.logprobs(batch)[0], reference(engine, batch, Probe(0, 0.0)), atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_probes_equal_writing_theta(dtype: torch.dtype) -> None:
    engine, weights = engine_for("llama", dtype=dtype)
    before = weights.checksum()
    batch = pose(examples("causal"))
    found = engine.logprobs(batch, PROBES)
    assert weights.checksum() == before
    # the same perturbed 16-bit weights, but sums in other orders: activations differ by a few of
    # their last places (2^-8 and 2^-11 relative), which reach logits of order 10
    tolerance = 0.5 if dtype == torch.bfloat16 else 0.1
    for probe, row in zip(PROBES, found, strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=tolerance)


def test_theta_is_unchanged_after_a_thousand_bfloat16_probes() -> None:
    engine, weights = engine_for("llama-tied", dtype=torch.bfloat16)
    before = [t.tensor.clone() for t in weights.tunables]
    batch = pose(examples("causal")[:2])
    for i in range(0, 1000, 4):
        engine.logprobs(batch, [Probe(i + k, s) for k in (0, 1) for s in (1e-3, -1e-3)])
    for t, data in zip(weights.tunables, before, strict=True):
        assert torch.equal(t.tensor.view(torch.int16), data.view(torch.int16))


def test_the_in_place_walk_drifts_in_bfloat16() -> None:
    """Why probes are not written: the same 1,000 probes by the paper's walk move theta."""
    engine, weights = engine_for("llama-tied", dtype=torch.bfloat16, memory="regenerate")
    before = torch.cat([t.tensor.flatten().float() for t in weights.tunables])
    batch = pose(examples("causal")[:1])
    for i in range(500):
        engine.logprobs(batch, [Probe(i, 1e-3), Probe(i, -1e-3)])
    after = torch.cat([t.tensor.flatten().float() for t in weights.tunables])
    assert float((after - before).norm() / before.norm()) > 1e-4


def test_an_interrupt_in_the_middle_leaves_theta_and_the_model_alone() -> None:
    engine, weights = engine_for("gpt2")
    before, batch = weights.checksum(), pose(examples("causal"))
    clean = engine.logprobs(batch)
    attention = engine.model.transformer.h[1].attn

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    attention.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.logprobs(batch, PROBES)
    del attention.__dict__["forward"]
    assert weights.checksum() == before
    assert not [m for m in engine.model.modules() if "forward" in m.__dict__]
    assert np.array_equal(engine.logprobs(batch), clean)


def test_in_place_walk_finds_the_same_losses() -> None:
    batch = pose(examples("causal"))
    expected = engine_for("opt")[0].logprobs(batch, PROBES)
    found = engine_for("opt", memory="regenerate")[0].logprobs(batch, PROBES)
    np.testing.assert_allclose(found, expected, atol=2e-4)  # drift of float32 on top of other sums


def test_splitting_a_batch_into_shares_changes_nothing_but_rounding() -> None:
    batch = pose(examples("causal"))
    engine, _ = engine_for("llama")
    expected = engine.logprobs(batch, PROBES)
    engine.max_tokens = 40
    np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=2e-5)


def test_every_scored_position_in_vocabulary_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head too large for one block gives the same log-probabilities."""
    engine, _ = engine_for("llama-tied")
    batch = pose(examples("causal"))
    expected = engine.logprobs(batch, PROBES)
    monkeypatch.setattr("mezo.engines.transformers.lm_head.block_elements", lambda weight: 32 * 7)
    np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=2e-5)


@pytest.mark.parametrize(("name", "tuning"), [("llama-tied", "full"), ("llama", "lora"), ("bert", "full")])
def test_a_head_of_16_bit_products_with_float32_sums(
    name: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, with the products widened here: the same sums in another order."""
    engine, _ = engine_for(name, tuning, torch.bfloat16)
    batch, calls = pose(examples("masked" if name in MASKED else "causal")), []
    expected = engine.logprobs(batch, PROBES)

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        assert x.dtype == weight.dtype == torch.bfloat16
        calls.append(len(weight))
        return x.float() @ weight.float().t()

    monkeypatch.setattr("mezo.engines.perturb.matmul.has_wide_products", lambda x, weight: True)
    monkeypatch.setattr("mezo.engines.perturb.matmul.wide_product", product)
    np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=2e-5)
    assert sum(calls) == VOCABULARY * len(PROBES)


def test_linear_layers_in_row_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama", "gpt2"):
        engine, _ = engine_for(name)
        batch = pose(examples("causal"))
        expected = engine.logprobs(batch, PROBES)
        with monkeypatch.context() as patch:
            patch.setattr("mezo.engines.perturb.probed.BLOCK_ELEMENTS", 32 * 5)
            np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=2e-5)


def test_step_equals_algorithm_1_written_out() -> None:
    """Algorithm 1 of the paper in plain torch, fed with the same z; n = 2, equal to rounding of the losses."""
    from mezo.algorithm import draw_of, mezo_step
    from mezo.estimators import TwoPoint

    lr, eps = 1e-2, 1e-2
    engine, weights = engine_for("llama")
    theta = [t.tensor.detach().clone() for t in weights.tunables]
    batch = examples("causal")
    posed = pose(batch)
    update, _, _ = mezo_step(engine, TwoPoint(eps), [batch], draw_of(9, 4, 2), lr)
    after = [t.tensor.detach().clone() for t in weights.tunables]
    other, _ = engine_for("llama")
    total = [torch.zeros_like(w) for w in theta]
    for k in range(2):
        seed = noise.derive_seed(9, 4, k)
        plus, minus = (
            OBJECTIVES["candidate-ce"](posed, reference(other, posed, Probe(seed, sign * eps)))
            for sign in (1, -1)
        )
        g = (plus - minus) / (2 * eps)
        # losses of order 1 agree to about 1e-6, and the difference is divided by 2 eps
        assert math.isclose(update.directions[k].projected_grad, g, abs_tol=2e-6 / (2 * eps) * 10)
        for grad, t in zip(total, weights.tunables, strict=True):
            z = torch.empty(1, t.tensor.numel())
            noise.fill_(z, Where(t.tensor_id), seed)
            grad += update.directions[k].projected_grad * z.view(t.tensor.shape) / 2
    for w, grad, found in zip(theta, total, after, strict=True):
        # one float32 rounding of each product and sum
        torch.testing.assert_close(found, w - lr * grad, rtol=1e-5, atol=1e-6)


def test_updates_do_not_depend_on_how_they_are_applied() -> None:
    a, b = engine_for("llama")[1], engine_for("llama")[1]
    update = Update(0, 1e-2, (Direction(5, 1.5), Direction(6, -0.5)), 2)
    SGD(weight_decay=0.1).apply_(a, None, update)
    SGD(weight_decay=0.1).apply_(b, None, copy.deepcopy(update))
    assert a.checksum() == b.checksum() != engine_for("llama")[1].checksum()
