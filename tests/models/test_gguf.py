"""GGUF files: every type of block gives the values that gguf-py says it means, and a run on a file is like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import gguf_models
from tests.gguf_models import READ, WRITTEN, tiny_llama, write
from tests.resumed import ROWS, config_for, resume, trainer
from tests.tiers import mostly_slow
from tests.tiny_models import same_files
from tests.toys import byte_tokenizer

from mezo.api import evaluate
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models import gguf_files
from mezo.models.load import load
from mezo.resume.replay import replay
from mezo.weights.fingerprint import fingerprint


@pytest.mark.parametrize(
    "kind", mostly_slow((*WRITTEN, *READ), lambda kind: kind in ("Q4_K", "Q8_0", "BF16"))
)
def test_every_type_of_block_is_read_as_what_it_means(tmp_path: Path, kind: str) -> None:
    expected = write(tmp_path / "model.gguf", kind)
    found = dict(load(tmp_path / "model.gguf", "float32", "cpu").model.named_parameters())
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    moved = sum(not torch.equal(found[n], p) for n, p in tiny_llama().named_parameters())
    assert moved == (0 if kind == "F32" else 9)  # the matrices


@torch.no_grad()
def test_a_file_is_the_model_and_the_tokenizer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "model.gguf")
    loaded = load(tmp_path, "float32", "cpu")  # of a folder: the file in it
    ids = torch.tensor([[5, 100, 264, 7]])
    assert torch.equal(loaded.model(ids).logits, tiny_llama()(ids).logits)
    own = byte_tokenizer(words=(" great", " terrible"), bos=False)
    assert loaded.tokenizer("so great a thing")["input_ids"] == own("so great a thing")["input_ids"]
    chat = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<s>user: hi</s>"
    assert capfd.readouterr() == ("", "")


def test_a_run_on_a_file_is_resumed_replayed_and_evaluated(tmp_path: Path) -> None:
    base = tmp_path / "small.gguf"
    write(base, "Q4_0")
    config = config_for(base, num_steps=6, eval_every=0, snapshot_every=3, schedule="constant")
    whole = trainer(config, output=tmp_path / "whole", artifacts=True).train()
    trainer(config.model_copy(update={"num_steps": 3}), output=tmp_path / "half").train()
    again = resume(tmp_path / "half", config)
    assert fingerprint(again.model.named_parameters()) == fingerprint(whole.model.named_parameters())
    replay(tmp_path / "whole", output=tmp_path / "again")
    saved, made = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again"))
    assert saved.read_bytes() == made.read_bytes()
    evaluated = evaluate(MeZOConfig.build(model=str(made.parent), task="sst2", data=_data(tmp_path)))
    assert evaluated["loss"] == pytest.approx(whole.evals[-1].loss, rel=1e-5)
    write(base, "Q4_1")
    with pytest.raises(MezoError, match="is not the base model of this run"):
        replay(tmp_path / "whole", output=tmp_path / "other")


def _data(folder: Path) -> str:
    path = folder / "data" / "validation.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    return str(path.parent)


def test_a_lora_adapter_on_a_file_is_evaluated_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "small.gguf"
    write(base, "Q8_0")
    config = config_for(base, num_steps=2, eval_every=0, tuning="lora", dtype="auto")
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    assert result.config.dtype == "float32"
    options = ["--model", str(base), "--adapter", str(tmp_path / "run" / "adapter"), "--task", "sst2"]
    assert main(["eval", *options, "--data", _data(tmp_path), "--json"]) == 0
    assert '"loss"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q4_0", "float32")]
)
def test_auto_is_the_type_that_holds_the_values(tmp_path: Path, kind: str, dtype: str) -> None:
    write(tmp_path / "model.gguf", kind)
    assert str(load(tmp_path / "model.gguf", "auto", "cpu").model.dtype) == f"torch.{dtype}"


# ---------------------------------------------------------------- what is refused


def complaint(path: Path) -> str:
    with pytest.raises(MezoError) as error:
        load(path, "float32", "cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_several_files_are_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write(tmp_path / name)
    assert "expected one GGUF file, found 2 (a.gguf, b.gguf): give the path" in complaint(tmp_path)


def test_a_part_of_a_model(tmp_path: Path) -> None:
    write(tmp_path / "big-00001-of-00003.gguf")
    assert "one of 3 parts of a model: join them first" in complaint(tmp_path)


def test_no_gguf_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK" * 20)
    assert "expected a GGUF file, found one that does not begin with GGUF" in complaint(path)
    path.write_bytes(b"GGUF" + bytes([9]) + bytes(40))
    assert "expected version 2 or 3 of GGUF, found 9" in complaint(path)
    write(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.gguf: " in complaint(path)
    path.write_bytes(path.read_bytes()[:400])
    assert "cannot load the config" in complaint(path)


def test_a_type_that_has_no_values_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gguf_models, "_as", lambda rows, kind, seed: (rows.astype(np.int8), rows.astype(np.float32))
    )
    write(tmp_path / "model.gguf", "I8")
    assert "cannot load the weights: Dequantization for" in complaint(tmp_path / "model.gguf")


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "nothing-known")
    writer.add_tensor("x", np.zeros((4, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    assert "GGUF model with architecture nothing-known is not supported yet" in complaint(tmp_path)


def test_scaled_positions_and_biases_would_be_lost(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", llama__rope__scaling__type="yarn")
    assert "scales its rotary positions, and transformers does not read how" in complaint(tmp_path)
    write(tmp_path / "model.gguf", model=tiny_llama(attention_bias=True))
    found = complaint(tmp_path)
    assert "weights, and the model that transformers makes of it" in found


def test_more_layers_than_tensors(tmp_path: Path) -> None:
    model = tiny_llama()
    write(tmp_path / "model.gguf", model=model)
    raw = (tmp_path / "model.gguf").read_bytes()
    key = b"llama.block_count"
    at = raw.index(key) + len(key) + 4
    (tmp_path / "model.gguf").write_bytes(raw[:at] + (10**9).to_bytes(4, "little") + raw[at + 4 :])
    assert "has 1,000,000,000 layers, and the files of weights have 12 tensors" in complaint(tmp_path)


def test_the_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model.gguf")
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: None)
    assert complaint(tmp_path).endswith("reading GGUF needs the package gguf: pip install 'mezo-llm[gguf]'")


@pytest.mark.parametrize("tuning", ["prefix", "head", "norms"])
def test_the_other_modes_replay_to_equal_bytes(tmp_path: Path, tuning: str) -> None:
    write(tmp_path / "small.gguf", "Q4_0")
    config = config_for(tmp_path / "small.gguf", num_steps=2, eval_every=0, tuning=tuning)
    trainer(config, output=tmp_path / "run", artifacts=True).train()
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
