"""Norms: their own copies move as the weights themselves would, and are saved as peft loads them."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LNTuningConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.outputs import finished
from tests.resumed import ROWS, base, config_for, resume, trainer
from tests.tiny_models import MASKED, same_files, tiny
from tests.toys import byte_tokenizer
from tests.zoo.building import build
from tests.zoo.judging import examples, judge
from tests.zoo.reference import reference
from torch import nn
from transformers import AutoModelForCausalLM

from mezo import api
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.models.load import load
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.resume.replay import replay
from mezo.runs.outputs.merge import merge
from mezo.runs.outputs.tuned import open_tuned
from mezo.scoring import pose
from mezo.training.monitors.advice import before_the_start
from mezo.tuning import save, tune, tuned_modules, with_adapter
from mezo.tuning.norms import norm_layers
from mezo.tuning.peft_warnings import quiet_peft
from mezo.types import Probe

EPSILON = 1e-2
# Sums of the same products in another order: 8 units in the last place of a log-probability of order 1.
TOLERANCE = 8 * 2**-23
IDS = torch.tensor([[70, 71, 72]])


def norms(**changes: Any) -> MeZOConfig:
    return MeZOConfig.build(**{"tuning": "norms", "model": "x", **changes})


def names_of(model: Any, **changes: Any) -> list[str]:
    return [plainly(t.name) for t in tune(model, norms(**changes))[1].tunables]


def plainly(name: str) -> str:
    return name.replace(".ln_tuning_layers.", ".")


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bert"])
def test_probes_are_theta_written_out_by_hand(name: str) -> None:
    model, weights = tune(tiny(name), norms())
    plain = tiny(name)  # which peft has not seen: its own gains are written, with the noise of the copies
    own = dict(plain.named_parameters())
    written = [SimpleNamespace(tensor=own[plainly(t.name)], tensor_id=t.tensor_id) for t in weights.tunables]
    assert sum("norm" in n.lower() or "ln_" in n for n in own) == len(written)
    kind = "masked" if name in MASKED else "causal"
    engine = TransformersEngine(model, weights, OBJECTIVES["candidate-ce"], SGD(), kind=kind, pad_token_id=0)
    batch, stored = pose(examples(kind)), (torch.float32,) * len(written)
    probes = [Probe(seed, sign * EPSILON) for seed in (7, 9) for sign in (1, -1)]
    expected = np.stack([reference(plain, written, stored, batch, probe) for probe in probes])
    before, largest = weights.checksum(), np.abs(expected).max()
    assert np.abs(engine.logprobs(batch, probes) - expected).max() <= TOLERANCE * largest
    assert engine.form.stacked
    assert weights.checksum() == before
    assert np.abs(expected[0] - expected[1]).max() > 1000 * TOLERANCE * largest


def test_a_model_in_bfloat16_stays_so(tmp_path: Path) -> None:
    config = config_for(
        base(tmp_path / "base"), tuning="norms", dtype="bfloat16", learning_rate=0.5, eval_every=0
    )
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    saved = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    start: dict[str, Any] = dict(norm_layers(load(config.model, "bfloat16").model))
    moved = {name: saved[f"base_model.model.{name}.ln_tuning_layers.weight"] for name in start}
    assert len(moved) == len(saved) == 5
    assert not any(torch.equal(moved[name], module.weight) for name, module in start.items())
    kept = [p for n, p in result.model.named_parameters() if "norm.base_layer" in n]
    assert all(torch.equal(a, b.weight) for a, b in zip(kept, start.values(), strict=True))
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(tmp_path / "run/adapter", tmp_path / "again/adapter")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("norms"), tuning="norms")


@torch.no_grad()
def test_what_is_saved_is_peft_s_and_merges(run: Path, tmp_path: Path) -> None:
    folder, bare = run / "adapter", AutoModelForCausalLM.from_pretrained(run.parent / "base")
    assert sum(path.stat().st_size for path in folder.glob("adapter*")) < 2000
    assert "gains and biases of the normalisation layers" in (folder / "README.md").read_text()
    start = bare(IDS).logits
    with quiet_peft():
        theirs = PeftModel.from_pretrained(bare, folder)(IDS).logits
    assert not torch.equal(theirs, start)
    assert torch.equal(with_adapter(load(str(run.parent / "base")).model, folder)(IDS).logits, theirs)
    merged = AutoModelForCausalLM.from_pretrained(merge(run, output=tmp_path / "merged"))
    assert torch.equal(merged(IDS).logits, theirs)
    tuned = open_tuned(str(run))
    assert torch.equal(tuned.model(IDS).logits, theirs)
    with tuned.base() as off:
        assert torch.equal(off(IDS).logits, start)


def test_resume_replay_and_evaluation(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    config = config_for(folder, tuning="norms", schedule="constant")
    whole = trainer(config, output=tmp_path / "whole", artifacts=True).train()
    trainer(config.model_copy(update={"num_steps": 6}), output=tmp_path / "run", artifacts=True).train()
    assert resume(tmp_path / "run", config, artifacts=True).losses == whole.losses
    replay(tmp_path / "run", output=tmp_path / "again")
    for other in ("whole/adapter", "again/adapter"):
        assert same_files(tmp_path / "run" / "adapter", tmp_path / other)
    assert (
        "norms on input_layernorm and post_attention_layernorm and norm, 5 modules"
        in trainer(config).summary()
    )


def test_a_saved_one_is_tuned_further(run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = config_for(run / "adapter", tuning="norms", data=str(rows), eval_every=0)
    before = api.evaluate(
        config.model_copy(update={"model": str(run.parent / "base")}), adapter=run / "adapter", split="train"
    )
    assert before["loss"] == api.evaluate(config, split="train")["loss"]
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    assert sum("ln_tuning_layers" in name for name, _ in result.model.named_parameters()) == 5
    written = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(run.parent / "base")
    with pytest.raises(MezoError, match=r"\(LN_TUNING\): tuning='norms' tunes that"):
        trainer(config.model_copy(update={"tuning": "lora"}))


# ---------------------------------------------------------------- which layers


def test_patterns_choose_layers_and_biases() -> None:
    assert names_of(tiny("llama"), train=(r"layers\.1\.",)) == [
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
    ]
    found = names_of(tiny("bert"), train=("bias",))
    assert len(found) == 6
    assert all(name.endswith("LayerNorm.bias") for name in found)


def test_peft_finds_exactly_these_layers() -> None:
    every, _ = tune(tiny("llama"), norms())
    assert every.peft_config["default"].target_modules == [
        "input_layernorm",
        "norm",
        "post_attention_layernorm",
    ]
    some, _ = tune(tiny("llama"), norms(train=(r"layers\.1\.input",)))
    assert some.peft_config["default"].target_modules == ["model.layers.1.input_layernorm"]
    assert tuned_modules(some) == "input_layernorm, 1 modules"


def test_what_is_a_norm() -> None:
    class Mine(nn.LayerNorm):
        pass

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.BatchNorm1d(4), Mine(4), nn.LayerNorm(4, elementwise_affine=False)
            self.d = nn.Linear(4, 4)

    assert list(norm_layers(Whole())) == ["b"]


def test_a_model_without_gains() -> None:
    model = build("OlmoForCausalLM")
    with pytest.raises(
        MezoError, match="'olmo' model has no normalisation layers with a gain: use tuning=lora"
    ) as e:
        tune(model, norms())
    assert "\n" not in str(e.value)


def test_shared_gains_are_not_parted() -> None:
    model = tiny("llama")
    model.model.layers[1].input_layernorm.weight = model.model.norm.weight
    with pytest.raises(MezoError, match=r"norm\.weight is the same tensor as .*use tuning=full with train"):
        tune(model, norms())


def test_an_offloaded_one_is_refused() -> None:
    model = tiny("llama")
    model.model.norm.to("meta")
    with pytest.raises(MezoError, match=r"would move model\.norm\.weight, which is offloaded"):
        tune(model, norms())


@pytest.mark.parametrize("engine", ["sglang", "vllm", "http"])
def test_serving_engines_refuse(engine: str) -> None:
    from mezo.combinations import check_combination

    with pytest.raises(MezoError, match=r"needs tuning=lora.*found tuning='norms'") as error:
        check_combination(norms(engine=engine))
    assert "\n" not in str(error.value)


def test_no_warning_of_a_small_rate() -> None:
    assert before_the_start(norms(learning_rate=3e-4)) is None


# ---------------------------------------------------------------- files of others


def test_what_is_not_all_there_or_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    sound = load_file(run / "adapter" / "adapter_model.safetensors")
    bare = load(str(run.parent / "base")).model
    first = min(sound)
    for tensors, words in (
        ({**sound, first: sound[first][:3].clone()}, "no norm for .* of shape"),
        ({**sound, first.replace("layers.0", "layers.77"): sound[first].clone()}, "no norm for"),
        ({**sound, first.replace("input_layernorm", "mlp.up_proj"): sound[first].clone()}, "no norm for"),
        ({}, "holds no gains"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((run / "adapter" / "adapter_config.json").read_bytes())
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(MezoError, match=words) as error:
            with_adapter(copy.deepcopy(bare), folder)
        assert "\n" not in str(error.value)


def test_half_of_a_norm_is_refused(tmp_path: Path) -> None:
    model, _ = tune(tiny("bert"), norms())
    save(model, byte_tokenizer(), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(max(name for name in tensors if name.endswith("bias")))
    save_file(tensors, path)
    with pytest.raises(MezoError, match="holds no bias of the norm"):
        with_adapter(tiny("bert"), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("name", "value"), [("modules_to_save", ["lm_head"]), ("peft_type", "LN"), ("strange", {"a": 1})]
)
def test_strange_settings_are_refused(name: str, value: Any, run: Path, tmp_path: Path) -> None:
    model, _ = tune(tiny("llama"), norms())
    save(model, byte_tokenizer(), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(MezoError, match=f"adapter_config.json.*{name}"):
        with_adapter(tiny("llama"), tmp_path / "adapter")


@torch.no_grad()
def test_one_that_peft_made_and_its_expressions_are_not_matched(tmp_path: Path) -> None:
    with quiet_peft():
        theirs = get_peft_model(tiny("llama"), LNTuningConfig(target_modules=["norm"]))
    for name, tensor in theirs.named_parameters():
        if "ln_tuning_layers" in name:
            tensor.mul_(1.5)
    theirs.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": "(.*a.*)*!"}))
    assert torch.equal(with_adapter(tiny("llama"), tmp_path)(IDS).logits, theirs.eval()(IDS).logits)


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "DebertaV2ForMaskedLM", "MambaForCausalLM"])
def test_other_architectures(name: str) -> None:
    assert judge(name, "norms").outcome == "works"
