"""What an engine cannot do is said before anything is loaded or started."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer
from transformers import GenerationConfig

from mezo.config import MeZOConfig
from mezo.engines import registry
from mezo.engines.serving import open as opening
from mezo.engines.serving.meta_model import outline
from mezo.engines.serving.subprocess_main import spec_of, values_of
from mezo.errors import MezoError
from mezo.models.identity import identity_of
from mezo.models.load import load
from mezo.tuning import tune
from mezo.weights.fingerprint import fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "sglan"}, "unknown engine 'sglan'; did you mean 'sglang'"),
        ({"server": ("http://a",)}, r"\(--server\) is for serving engines \(sglang, vllm, http\)"),
        (
            {"engine": "http", "tuning": "lora", "server": ("http://a",), "tensor_parallel": 2},
            "engine='http' needs tensor_parallel=1, found tensor_parallel=2: running servers have their own",
        ),
        ({"server_args": {"a": 1}}, r"server_args=.* \(--server-args\) is for serving engines"),
        (
            {"engine": "sglang", "tuning": "prefix"},
            "engine='sglang' needs tuning=lora or full, found tuning='prefix'",
        ),
        ({"engine": "http", "tuning": "full"}, "engine='http' needs tuning=lora, found tuning='full'"),
        ({"engine": "http", "tuning": "lora"}, "needs the addresses of running servers: --server http://"),
        (
            {"engine": "sglang", "server": ("http://a",)},
            "--server is for engine http, and the engine is 'sglang'",
        ),
        (
            {"engine": "sglang", "activation_cache_mb": 5},
            "engine='sglang' needs activation_cache_mb=0, found activation_cache_mb=5",
        ),
        (
            {"engine": "sglang", "memory": "store"},
            "needs memory=materialize or regenerate, found memory='store'",
        ),
        (
            {"engine": "vllm", "noise": "low-rank"},
            "needs noise=gaussian or rademacher or rank-one, found noise='low-rank'",
        ),
        (
            {"engine": "vllm", "layer_scaling": "variance"},
            "needs layer_scaling=none, found layer_scaling='variance': the norms of all weights are in the engine",
        ),
        ({"engine": "sglang", "tuning": "lora", "memory": "store"}, "probes are adapters of their own"),
    ],
)
def test_a_config_is_checked(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str) -> None:
    for engine in ("SGLANG", "VLLM"):
        monkeypatch.setenv(f"MEZO_{engine}_PYTHON", "python")
    with pytest.raises(MezoError, match=message):
        registry.check(MeZOConfig.build(**settings))


def test_an_engine_has_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MezoError, match=r"engine 'sglang' starts its own processes .* without torchrun"):
        registry.check(MeZOConfig.build(engine="sglang"))
    monkeypatch.setenv("WORLD_SIZE", "1")


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.delenv(f"MEZO_{engine.upper()}_PYTHON", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = MeZOConfig.build(engine=engine)
    with pytest.raises(
        MezoError, match=rf"needs the package {engine}, .*docs/engines\.md .* MEZO_\w+_PYTHON"
    ):
        registry.check(config)
    monkeypatch.setenv(f"MEZO_{engine.upper()}_PYTHON", "python")
    registry.check(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny("llama-tied").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_outline_has_the_fingerprint_of_the_model(folder: Path, dtype: str) -> None:
    config = MeZOConfig.build(model=str(folder), dtype=dtype, engine="sglang")
    found = outline(config, print)
    assert all(p.is_meta for p in found.model.parameters())
    assert found.fingerprint() == fingerprint(load(str(folder), dtype, "cpu").model.named_parameters())


def test_an_outline_of_renamed_tensors_has_it_too(tmp_path: Path) -> None:
    """A checkpoint without its head's prefix is one that transformers reads, and a name lookup does not."""
    model = tiny("gpt2")
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    found = outline(MeZOConfig.build(model=str(tmp_path), engine="sglang"), print)
    assert found.fingerprint() == fingerprint(load(str(tmp_path), "float32", "cpu").model.named_parameters())


def test_the_adapter_of_an_outline_is_that_of_the_model(folder: Path) -> None:
    config = MeZOConfig.build(model=str(folder), engine="sglang", tuning="lora", dtype="bfloat16", seed=5)
    _, here = tune(load(str(folder), "bfloat16", "cpu").model, config)
    tuned, there = tune(outline(config, print).model, config)
    assert there.checksum() == here.checksum()
    assert there.norm(7) == here.norm(7)
    assert not any(t.tensor.is_meta for t in there.tunables)
    assert all(p.is_meta for name, p in tuned.named_parameters() if ".lora_" not in name)


@pytest.mark.parametrize("given", [None, {"eos_token_id": [2, 5], "do_sample": True, "top_p": 0.8}])
def test_an_outline_is_recorded_as_the_model_is(tmp_path: Path, given: dict[str, Any] | None) -> None:
    """Else no run on an engine would replay on the checkpoint."""
    tiny("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    if given is not None:
        GenerationConfig(**given).save_pretrained(tmp_path)
    found = outline(MeZOConfig.build(model=str(tmp_path), engine="sglang"), print)
    assert identity_of(found) == identity_of(load(str(tmp_path), "float32", "cpu"))


def test_noise_needs_no_weights(folder: Path) -> None:
    config = MeZOConfig.build(model=str(folder), engine="sglang", noise="rademacher")
    _, here = tune(load(str(folder), "float32", "cpu").model, config)
    _, there = tune(outline(config, print).model, config)
    assert there.norm(7) == here.norm(7)
    assert [(t.name, t.tensor.shape) for t in there.tunables] == [
        (t.name, t.tensor.shape) for t in here.tunables
    ]


def test_a_masked_model_is_refused(tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MezoError, match=r"serves causal language models, and .* is a masked one"):
        outline(MeZOConfig.build(model=str(tmp_path), engine="sglang"), print)


def test_a_spec_survives_the_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MeZOConfig.build(
        model=str(folder), engine="sglang", tuning="lora", lora_rank=3, server_args={"a": [1]}, max_length=64
    )
    described = outline(config, print)
    tuned, weights = tune(described.model, config)
    settings = opening.adapter_config(tuned)
    lora = opening.lora_spec(settings, weights, at_once=100)
    assert (lora.rank, lora.matrices, lora.at_once) == (3, ("q_proj", "v_proj"), 64)
    assert opening.lora_spec(settings, weights, at_once=6).at_once == 6
    size = 4 * sum(t.tensor.numel() for t in weights.tunables)
    monkeypatch.setattr(opening, "_BYTES", 20 * size)
    assert opening.lora_spec(settings, weights, at_once=100).at_once == 20
    monkeypatch.setattr(opening, "_BYTES", size)  # large adapters: as many as ever
    assert opening.lora_spec(settings, weights, at_once=100).at_once == 8
    spec = opening.spec_of(config, described, lora)
    assert spec.max_length == 64 + config.max_new_tokens + 1
    assert spec_of(values_of(spec)) == spec
