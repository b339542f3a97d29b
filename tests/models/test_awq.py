"""AWQ checkpoints: made here by the layout of the format; loaded on a GPU alone, by gptqmodel."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.gguf_models import tiny_llama
from tests.resumed import config_for, trainer
from tests.tiny_models import same_files
from tests.toys import byte_tokenizer
from torch import nn

from mezo.errors import MezoError
from mezo.models.load import load
from mezo.resume.replay import replay

GROUP = 64
PLACES = (0, 2, 4, 6, 1, 3, 5, 7)  # of eight columns in an int32, the lowest four bits first ("gemm")


def packed(codes: np.ndarray) -> torch.Tensor:
    """(rows, columns) of 4 bits -> (rows, columns / 8) int32."""
    of_eight = codes.reshape(codes.shape[0], -1, 8)[:, :, PLACES].astype(np.uint64)
    words = (of_eight << np.arange(0, 32, 4, dtype=np.uint64)).sum(-1, dtype=np.uint64).astype(np.uint32)
    return torch.from_numpy(words.view(np.int32).copy())


def saved(folder: Path) -> nn.Module:
    """Write a Llama in AWQ; the same with the weights that the file stands for, scales times (code - zero)."""
    model, draw = tiny_llama(), np.random.default_rng(0)
    folder.mkdir()
    model.save_pretrained(folder)
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            outputs, inputs = module.weight.shape
            codes = draw.integers(0, 16, (inputs, outputs))
            zeros = draw.integers(6, 10, (inputs // GROUP, outputs))
            scales = draw.uniform(2e-3, 6e-3, (inputs // GROUP, outputs)).astype(np.float16)
            del weights[f"{name}.weight"]
            weights[f"{name}.qweight"], weights[f"{name}.qzeros"] = packed(codes), packed(zeros)
            weights[f"{name}.scales"] = torch.from_numpy(scales)
            whole = (codes - zeros.repeat(GROUP, 0)) * scales.astype(np.float64).repeat(GROUP, 0)
            module.weight.data = torch.from_numpy(whole.T.copy()).float()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP,
        "zero_point": True,
        "version": "gemm",
    }
    (folder / "config.json").write_text(json.dumps(said))
    return model


def test_eight_codes_of_a_word_stand_where_the_format_has_them() -> None:
    (word,) = packed(np.arange(8)[None, :]).view(-1).tolist()
    assert [word >> 4 * n & 15 for n in range(8)] == [0, 2, 4, 6, 1, 3, 5, 7]


def test_a_cpu_refuses_one_in_a_line(tmp_path: Path) -> None:
    saved(tmp_path / "base")
    with pytest.raises(MezoError, match=r"by awq needs? (the package gptqmodel|a CUDA GPU)"):
        load(str(tmp_path / "base"), "float16", "cpu")


@pytest.mark.gpu
def test_one_has_its_logits_and_a_run_replays_to_equal_bytes(tmp_path: Path) -> None:
    pytest.importorskip("gptqmodel")
    expected = saved(tmp_path / "base")
    rows = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        found = load(str(tmp_path / "base"), "float16", "cuda").model(rows.cuda()).logits.float().cpu()
        wanted = expected(rows).logits
    # products of float16 along 256 inputs, twice in a layer: 2^-10 each, of the largest logit
    assert float((found - wanted).abs().max()) <= 2**-7 * float(wanted.abs().max())
    changes = dict(tuning="lora", dtype="float16", device="cuda", num_steps=3, eval_every=0)
    trainer(config_for(tmp_path / "base", **changes), output=tmp_path / "run", artifacts=True).train()
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(tmp_path / "run" / "adapter", tmp_path / "again" / "adapter")
