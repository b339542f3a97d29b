"""A GPT-OSS checkpoint whose experts are in mxfp4: it becomes bfloat16, and what is tuned and replayed is that."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.resumed import base, config_for, trainer
from tests.tiny_models import same_files

from mezo.models.load import load
from mezo.resume.replay import replay

HALVES = (
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
)  # e2m1 without its sign (OCP Microscaling formats 1.0, table 4)
VALUES = np.array([*HALVES, *(-value for value in HALVES)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two layers of two experts; every code of four bits is there, and scales from 2^-4 to 2^-1."""
    made = base(tmp_path / "base")
    vocabulary = json.loads((made / "config.json").read_text())["vocab_size"]
    config = transformers.GptOssConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        num_local_experts=2,
        num_experts_per_tok=1,
        layer_types=["sliding_attention", "full_attention"],
    )
    torch.manual_seed(0)
    model: Any = transformers.GptOssForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(made)
    weights, draw = load_file(made / "model.safetensors"), np.random.default_rng(0)
    for name in [n for n in weights if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, rows = weights.pop(name).shape
        for part, shape, least, most in (
            ("blocks", (experts, rows, width // 32, 16), 0, 256),
            ("scales", (experts, rows, width // 32), 123, 127),
        ):
            drawn = draw.integers(least, most, shape, dtype=np.uint8)
            weights[f"{name}_{part}"] = torch.from_numpy(drawn)
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((made / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (made / "config.json").write_text(json.dumps(said))
    return made


def by_hand(blocks: torch.Tensor, scales: torch.Tensor) -> np.ndarray:
    """(experts, in, out): two codes in a byte, the lower bits first, times 2^(scale - 127)."""
    pairs = blocks.numpy()
    codes = np.stack([pairs & 15, pairs >> 4], -1).reshape(*pairs.shape[:-1], 32)
    values = VALUES[codes] * np.exp2(scales.numpy()[..., None].astype(int) - 127)
    return values.reshape(*values.shape[:2], -1).swapaxes(1, 2)


def test_its_weights_are_those_of_the_format(folder: Path) -> None:
    """Equal: products of these codes and powers of two have few bits, which bfloat16 holds."""
    held, model = load_file(folder / "model.safetensors"), load(str(folder), "bfloat16", "cpu").model
    found = {n: p for n, p in model.named_parameters() if n.endswith(("gate_up_proj", "down_proj"))}
    assert len(found) == 4
    for name, weight in found.items():
        assert weight.dtype == torch.bfloat16
        expected = by_hand(held[f"{name}_blocks"], held[f"{name}_scales"])
        assert np.array_equal(weight.detach().float().numpy(), expected)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_run_replays_to_equal_bytes(tuning: str, folder: Path, tmp_path: Path) -> None:
    config = config_for(folder, tuning=tuning, dtype="bfloat16", num_steps=3)
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    assert all(np.isfinite(result.losses))
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    if tuning == "full":  # what was saved is the tuned model, and loads as one
        again = dict(load(str(written), "bfloat16", "cpu").model.named_parameters())
        assert all(torch.equal(again[name], p) for name, p in result.model.named_parameters())
