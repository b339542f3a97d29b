"""`mezo merge`: one model that computes what base and adapter do."""

import json
from pathlib import Path

import pytest
import torch
from tests.outputs import finished
from transformers import AutoModelForCausalLM, AutoTokenizer

from mezo.cli import main
from mezo.models.load import load
from mezo.tuning.saving import with_adapter

IDS = torch.tensor([[70, 71, 72, 73]])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_the_merged_model_is_base_and_adapter(dtype: str, tolerance: float, tmp_path: Path) -> None:
    run = finished(tmp_path, tuning="lora", dtype=dtype)
    assert main(["merge", str(run)]) == 0
    folder = run / "merged"
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert merged.dtype == getattr(torch, dtype)
    base = load(str(tmp_path / "base"), dtype)
    plain = base.model(IDS).logits.float().clone()
    tuned = with_adapter(base.model, run / "adapter")(IDS).logits.float()
    found = merged(IDS).logits.detach().float()
    # the sum is rounded once to the dtype: 2^-24 or 2^-8 of each weight, in sums of 16 to 24 products
    scale = float(tuned.abs().max())
    assert float((found - tuned).abs().max()) <= tolerance * scale
    assert float((found - plain).abs().max()) > 4 * float((found - tuned).abs().max())
    assert AutoTokenizer.from_pretrained(folder)("gab")["input_ids"] == [1, 107, 101, 102]
    assert json.loads((folder / "config.json").read_text())["use_cache"] is True
    assert (folder / "generation_config.json").is_file()
    card = (folder / "README.md").read_text()
    assert "library_name: transformers" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [("prefix", "a prefix is keys and values beside the weights"), ("full", "is a whole model already")],
)
def test_what_cannot_be_merged(
    tuning: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, tuning=tuning)
    capsys.readouterr()
    assert main(["merge", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, tuning="lora")
    assert main(["merge", str(run), "--output", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    (run / "adapter/adapter_config.json").unlink()
    assert main(["merge", str(run)]) == 2
    assert "has no weights yet" in capsys.readouterr().err
