"""What lies below the lowest tuned layer is computed once, and the losses stay what they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.engines.test_probing import PROBES, examples, reference
from tests.models import tiny

from mezo.config import MeZOConfig
from mezo.engines.transformers import TransformersEngine
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import Example, pose
from mezo.tuning import tune
from mezo.types import Direction, Update

TARGETS = {
    "llama": "layers.1.self_attn.q_proj",
    "qwen3": "layers.1.self_attn.v_proj",
    "opt": "layers.1.self_attn.q_proj",
    "gpt2": "h.1.attn.c_attn",
    "bert": "layer.1.attention.self.query",
}


def engine_for(name: str, target: str | None = None, activation_cache_bytes: int = 0) -> TransformersEngine:
    config = MeZOConfig.build(tuning="lora", lora_rank=4, lora_targets=(target or TARGETS[name],), seed=3)
    model, weights = tune(tiny(name), config)
    weights.update_([1], [0.1])  # B starts at zero: move it, or A's noise is never seen
    return TransformersEngine(
        model,
        weights,
        OBJECTIVES["candidate-ce"],
        SGD(),
        kind="masked" if name == "bert" else "causal",
        pad_token_id=0,
        activation_cache_bytes=activation_cache_bytes,
    )


@pytest.mark.parametrize("name", TARGETS)
def test_top_layers_alone_see_every_probe(name: str) -> None:
    engine = engine_for(name)
    assert engine.below is not None
    assert engine.below.first == 1
    rows: list[int] = []
    hook = engine.below.layers[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    batch = pose(examples(engine.kind))
    for _ in range(2):
        found = engine.logprobs(batch, PROBES)
        for probe, row in zip(PROBES, found, strict=True):
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)
        engine.apply(Update(0, 0.1, (Direction(5, 1.0),), 1))
    hook.remove()
    once = engine.logprobs(batch, PROBES[:1])
    np.testing.assert_allclose(once[0], engine.logprobs(batch, PROBES)[0], atol=2e-5)
    share = engine.laid_out(batch, len(PROBES)).shares[0]
    assert rows[0] == len(share.layout.input_ids), "the lower layer saw the batch once, not once a probe"
    assert engine.counts.seconds_saved > 0


def test_a_layer_that_other_probes_move_is_not_taken_for_one_read_past_its_module() -> None:
    engine = engine_for("llama", "q_proj")
    probes = [replace(p, scaling=s) for s in engine.weights.layers().values() for p in PROBES]
    assert len(engine._groups(probes)) > 1
    engine.audit_next()
    found = engine.losses(examples("causal"), probes)
    assert engine.form.stacked
    assert engine.probing.whole == set()
    batch = pose(examples("causal"))
    for probe, loss in zip(probes, found, strict=True):
        assert loss == pytest.approx(
            OBJECTIVES["candidate-ce"](batch, reference(engine, batch, probe)), abs=2e-4
        )


def test_a_pass_that_is_done_again_counts_once() -> None:
    engine = engine_for("llama", "q_proj")
    watched = engine.weights.tunables[0].tensor
    layer, plain = engine.model.get_submodule("base_model.model.model.layers.1.mlp"), []

    def reads(module: object, args: object, output: Any) -> Any:
        plain.append(1)
        return output + 0 * watched.sum()

    asked = {}
    for name in ("first", "second"):
        before = engine.counts.asked
        engine.losses(examples("causal"), PROBES)
        asked[name] = engine.counts.asked - before
        layer.register_forward_hook(reads)  # the second time it is read past its module
    assert plain
    assert engine.probing.whole
    assert asked["first"] == asked["second"]


def test_nothing_is_set_apart_where_the_first_layer_is_tuned() -> None:
    below = engine_for("llama", "q_proj").below
    assert below is not None
    assert below.first == 0
    assert below.cut(PROBES) is None


def test_rows_that_come_again_skip_the_lower_layers() -> None:
    plain, engine = engine_for("llama"), engine_for("llama", activation_cache_bytes=1 << 20)
    assert engine.below is not None
    ran: list[int] = []
    engine.below.layers[0].get_submodule("mlp").register_forward_pre_hook(lambda module, args: ran.append(1))
    batch = examples("causal")
    for chosen in (batch, batch[::-1], batch[1:4]):
        posed, before = pose(chosen), len(ran)
        found = engine.logprobs(posed, PROBES)
        np.testing.assert_allclose(found, plain.logprobs(posed, PROBES), atol=5e-5)
        assert len(ran) - before == (1 if chosen is batch else 0)
        for e in (plain, engine):
            e.apply(Update(0, 0.1, (Direction(5, 1.0),), 1))


def test_what_is_kept_stays_within_its_bound() -> None:
    bound = 40 * 32 * 4  # bytes: 40 tokens of 32 float32 features
    engine = engine_for("llama", activation_cache_bytes=bound)
    assert engine.below is not None
    for n in range(12):
        example = Example(tuple(range(10 + n, 22 + n)), ((40,), (41,)), 0)
        engine.logprobs(pose([example]), PROBES)
        assert engine.below.bytes == sum(kept.nbytes for kept in engine.below.kept.values()) <= bound
    assert len(engine.below.kept) == 3
