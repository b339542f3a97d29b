"""The head alone: tied ones get a copy, what is under them is frozen and computed once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.perturb.test_forward import PROBES, examples, reference
from tests.tiny_models import ARCHITECTURES, MASKED, same_files, tiny
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import pose
from mezo.tuning import save, tune
from mezo.types import Direction, Update


def engine_for(name: str, **settings: Any) -> TransformersEngine:
    model, weights = tune(tiny(name), MeZOConfig.build(tuning="head", **settings))
    return TransformersEngine(
        model,
        weights,
        OBJECTIVES["candidate-ce"],
        SGD(),
        kind="masked" if name in MASKED else "causal",
        pad_token_id=0,
        activation_cache_bytes=1 << 20,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_probes_equal_writing_theta_and_the_layers_run_once(name: str) -> None:
    engine = engine_for(name)
    assert engine.form.stacked
    assert engine.below is not None
    assert engine.below.first == 2, "every layer lies below"
    layers: list[int] = []
    for layer in engine.below.layers[:2]:
        layer.register_forward_pre_hook(lambda module, args: layers.append(len(args[0])))
    batch = pose(examples(engine.kind))
    for again in (False, True):
        layers.clear()
        found = engine.logprobs(batch, PROBES)
        if not again:  # computed for one probe; from then on what came out of them is kept
            assert layers == [len(engine.laid_out(batch, len(PROBES)).shares[0].layout.input_ids)] * 2
        for probe, row in zip(PROBES, found, strict=True):
            # float32 sums in another order: relative 1e-6 of logits of order 10
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)
        engine.apply(Update(0, 0.1, (Direction(5, 1.0),), 1))
    assert len(engine.below.kept) > 0
    assert not [m for m in engine.model.modules() if "forward" in m.__dict__]


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "opt", "bert", "roberta"])
def test_only_the_head_moves_and_it_comes_back_from_disk(name: str, tmp_path: Path) -> None:
    engine = engine_for(name)
    for step in range(3):
        engine.apply(Update(step, 0.1, (Direction(step, 1.0),), 1))
    model, before = engine.model, tiny(name)
    changed = {
        n
        for n, p in before.base_model.named_parameters()
        if not torch.equal(p, model.base_model.get_parameter(n))
    }
    assert changed == set()
    assert not torch.equal(model.get_output_embeddings().weight, before.get_output_embeddings().weight)
    save(model, byte_tokenizer(), tmp_path / "model")
    loaded, info = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    save(loaded, byte_tokenizer(), tmp_path / "again")
    assert same_files(tmp_path / "model", tmp_path / "again")


@pytest.mark.parametrize(("name", "part"), [("bert", "transform"), ("roberta", "lm_head.dense")])
def test_a_masked_head_s_dense_layer_is_tuned_by_name(name: str, part: str) -> None:
    engine = engine_for(name, train=(part,))
    assert all(part in t.name for t in engine.weights.tunables)
    model = engine.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "still tied"
    batch = pose(examples("masked"))
    for probe, row in zip(PROBES, engine.logprobs(batch, PROBES), strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)


def test_a_copied_head_leaves_no_bias_that_nothing_reads() -> None:
    names = [t.name for t in engine_for("bert", train=(".",)).weights.tunables]
    assert "cls.predictions.bias" not in names
    assert {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"} < set(names)
