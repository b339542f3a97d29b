"""A run with each optimizer, from its files to the same bytes of weights."""

from pathlib import Path
from typing import Any

import pytest
from tests.tiers import mostly_slow
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.optimizers import OPTIMIZERS
from mezo.resume.replay import replay
from mezo.training.trainer import MeZOTrainer

ROWS = [{"sentence": s, "label": int(s.startswith("g"))} for s in ("gab", "hat", "gig", "hub") * 4]
HOW: list[dict[str, Any]] = [
    dict(tuning="full", dtype="bfloat16", num_directions=2, weight_decay=0.1),
    dict(tuning="lora", dtype="float32", schedule="linear"),
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("optimizer", mostly_slow(OPTIMIZERS, lambda name: name == "adam"))
def test_a_run_replays_to_the_same_bytes(optimizer: str, how: dict[str, Any], tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "base")
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(tmp_path / "base")
    config = MeZOConfig.build(
        model=str(tmp_path / "base"),
        task="sst2",
        batch_size=4,
        num_steps=6,
        learning_rate=1e-3,
        optimizer=optimizer,
        history=4,
        **how,
    )
    MeZOTrainer(config, train=MeZODataset(ROWS, task="sst2"), output=tmp_path / "run").train()
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
