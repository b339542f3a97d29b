"""A prefix on a real pretrained model: SmolLM2-135M, from the package index."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.models.load import LoadedModel, load
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.tuning import save, tune
from mezo.tuning.peft_warnings import quiet_peft

pytestmark = pytest.mark.slow


def smollm2() -> LoadedModel:
    try:
        return load("smollm2-135m", "bfloat16")
    except MezoError as error:
        pytest.skip(f"no SmolLM2 here: {error}")


def test_a_prefix_is_run_every_fast_way_and_is_peft_s(tmp_path: Path) -> None:
    loaded = smollm2()
    model, weights = tune(loaded.model, MeZOConfig.build(tuning="prefix"))
    assert weights.num_elements == 30 * 2 * 5 * 3 * 64  # layers, keys and values, tokens, heads, dim
    objective = OBJECTIVES["candidate-ce"]
    pad = loaded.pad_token_id
    engine = TransformersEngine(model, weights, objective, SGD(), kind="causal", pad_token_id=pad)
    assert engine.form.packed
    assert engine.form.shared
    assert engine.form.stacked
    save(model, loaded.tokenizer, tmp_path / "adapter")
    with quiet_peft():
        peft = PeftModel.from_pretrained(smollm2().model, str(tmp_path / "adapter")).eval()
    inputs = loaded.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, peft(**inputs).logits)


def test_the_start_does_not_depend_on_the_number_of_threads() -> None:
    threads, starts = torch.get_num_threads(), set()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            starts.add(tune(smollm2().model, MeZOConfig.build(tuning="prefix"))[1].checksum())
    finally:
        torch.set_num_threads(threads)
    assert len(starts) == 1
