"""Probes that move upper layers alone: what lies below is computed once, the losses stay what they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.engines.perturb.test_forward import PROBES, engine_for, examples
from tests.tiny_models import ARCHITECTURES, tiny

from mezo.engines.transformers.engine import TransformersEngine
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import ScoringBatch, pose
from mezo.types import THETA, Probe, Scaling
from mezo.weights.weights import Weights

# two float32 forward passes of two layers that sum in another order, as in test_probing.py
TOLERANCE = 2e-4


def at_theta_moved(engine: TransformersEngine, batch: ScoringBatch, probe: Probe) -> np.ndarray:
    """The engine's own answer at theta, with theta moved to the probe's point and back."""
    theta = [t.tensor.clone() for t in engine.weights.tunables]
    engine.weights.add_noise_(probe)
    found = engine.logprobs(batch)[0]
    for t, before in zip(engine.weights.tunables, theta, strict=True):
        t.tensor.data.copy_(before)
    return found


def at_layer(engine: TransformersEngine, ending: str) -> list[Probe]:
    layer = next(s for name, s in engine.weights.layers().items() if name.endswith(ending))
    return [replace(p, scaling=layer) for p in PROBES]


def rows_seen(engine: TransformersEngine, layer: int, batch: ScoringBatch, probes: list[Probe]) -> list[int]:
    """How many rows each pass brings to a layer."""
    assert engine.below is not None
    rows: list[int] = []
    hook = engine.below.layers[layer].register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    engine.logprobs(batch, probes)
    hook.remove()
    return rows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_block_of_upper_layers(name: str) -> None:
    engine, weights = engine_for(name)
    assert engine.below is not None
    assert engine.below.first == 0  # everything is tuned
    batch, before = pose(examples(engine.kind)), weights.checksum()
    for part in weights.layers().values():
        probes = [replace(p, scaling=part) for p in PROBES]
        found = engine.logprobs(batch, probes)
        for probe, row in zip(probes, found, strict=True):
            np.testing.assert_allclose(row, at_theta_moved(engine, batch, probe), atol=TOLERANCE)
        assert np.abs(found[0] - found[1]).max() > 1e-4, "the probes did differ"
        shared, engine.below = engine.below, None
        np.testing.assert_allclose(found, engine.logprobs(batch, probes), atol=TOLERANCE)
        engine.below = shared
    assert weights.checksum() == before
    upper, lower = at_layer(engine, ".1"), at_layer(engine, ".0")
    once, each = rows_seen(engine, 0, batch, upper), rows_seen(engine, 0, batch, lower)
    assert len(once) == 1
    assert [4 * rows for rows in once] == each, "the lower layer saw the batch once, not once a probe"


def test_probes_of_several_layers_go_layer_by_layer() -> None:
    engine, weights = engine_for("llama")
    batch, parts = pose(examples("causal")), list(weights.layers().values())
    probes = [THETA, *(replace(p, scaling=part) for part in parts for p in PROBES[:2])]
    assert [
        len(group) for group in engine._groups(probes)
    ]  # a probe at theta joins the next == [3] + [2] * (len(parts) - 1)
    found = engine.logprobs(batch, probes)
    for probe, row in zip(probes, found, strict=True):
        np.testing.assert_allclose(row, at_theta_moved(engine, batch, probe), atol=TOLERANCE)


def test_the_head_alone_sees_every_probe() -> None:
    engine, _ = engine_for("llama")
    batch = pose(examples("causal"))
    probes = at_layer(engine, "lm_head")
    share = engine.laid_out(batch, len(probes)).shares[0]
    assert rows_seen(engine, 1, batch, probes) == [len(share.layout.input_ids)]


def test_tied_weights_are_read_below_all_layers() -> None:
    engine, _ = engine_for("llama-tied")
    assert engine.below is not None
    assert engine.below.cut(at_layer(engine, "embed_tokens")) is None


def test_a_scaling_weighs_each_tensor() -> None:
    engine, weights = engine_for("llama")
    batch = pose(examples("causal"))
    factors = torch.linspace(0, 2, len(weights.tunables)).tolist()
    ramp = Scaling("ramp", tuple(factors))
    probes = [replace(p, scaling=ramp) for p in PROBES]
    for probe, row in zip(probes, engine.logprobs(batch, probes), strict=True):
        np.testing.assert_allclose(row, at_theta_moved(engine, batch, probe), atol=TOLERANCE)


def test_the_activation_cache_under_a_block() -> None:
    """Kept is what comes out below everything tuned, whatever moves at the step."""
    model = tiny("llama")
    upper = [(n, p) for n, p in model.named_parameters() if "embed" not in n and "layers.0" not in n]
    engine = TransformersEngine(
        model,
        Weights(upper),
        OBJECTIVES["candidate-ce"],
        SGD(),
        kind="causal",
        pad_token_id=0,
        activation_cache_bytes=1 << 20,
    )
    assert engine.below is not None
    assert engine.below.first == 1
    batch = pose(examples("causal"))
    for probes in (PROBES, at_layer(engine, "lm_head"), at_layer(engine, ".1"), PROBES):
        found = engine.logprobs(batch, probes)
        for probe, row in zip(probes, found, strict=True):
            np.testing.assert_allclose(row, at_theta_moved(engine, batch, probe), atol=TOLERANCE)
