"""Whole runs of each tuning mode: they descend, replay to the same bytes, and are evaluated again."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer

from mezo import api
from mezo.config import MeZOConfig
from mezo.resume.replay import replay
from mezo.runs.folder import RunFolder
from mezo.training.trainer import MeZOTrainer

WORDS = ("gab", "hat", "gig", "hub", "get", "him", "god", "hen")  # those with g are great
# Large enough to go down in 20 steps, and a few times below where the toy diverges.
STEPS = {
    "prefix": dict(learning_rate=1.0, epsilon=1e-1),
    "head": dict(learning_rate=1e-2, epsilon=1e-3),
    "full": dict(learning_rate=1e-2, epsilon=1e-3, train=(r"layers?\.1\.",)),
    "norms": dict(learning_rate=1e-1, epsilon=1e-2),
    "lora": dict(learning_rate=1e-1, epsilon=1e-2, train=(r"layers?\.1\.",)),
}


def base(folder: Path, name: str) -> Path:
    """A tiny model and its tokenizer as a folder, as a hub model would be."""
    tiny(name).save_pretrained(folder)
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews"
    folder.mkdir()
    rows = [json.dumps({"sentence": w, "label": int(w.startswith("g"))}) + "\n" for w in WORDS]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(rows))
    return folder


def config_for(base: Path, reviews: Path, tuning: str, **changes: Any) -> MeZOConfig:
    fixed = dict(model=str(base), task="sst2", data=str(reviews), tuning=tuning, seed=2)
    budget = dict(batch_size=8, num_steps=20, num_directions=8)
    return MeZOConfig.build(**{**fixed, **budget, **STEPS[tuning], **changes})


@pytest.mark.parametrize("tuning", STEPS)
def test_twenty_steps_descend(reviews: Path, tmp_path: Path, tuning: str) -> None:
    model = base(tmp_path / "base", "llama-tied")
    first, last = MeZOTrainer(config_for(model, reviews, tuning)).train().evals
    assert last.loss < 0.95 * first.loss


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama-tied", "roberta"])
@pytest.mark.parametrize("tuning", STEPS)
def test_a_run_replays_to_the_same_bytes_and_is_evaluated_again(
    reviews: Path, tmp_path: Path, tuning: str, name: str, dtype: str
) -> None:
    model = base(tmp_path / "base", name)
    config = config_for(model, reviews, tuning, dtype=dtype, num_steps=3, num_directions=2)
    result = MeZOTrainer(config, output=tmp_path / "run").train()
    folder = RunFolder.open(tmp_path / "run")
    written = replay(folder.path, output=tmp_path / "again")
    assert written.name == ("adapter" if config.saves_adapter else "model")
    assert same_files(written, folder.path / written.name)
    again = (
        api.evaluate(config, adapter=written)
        if config.saves_adapter
        else api.evaluate(config.model_copy(update={"model": str(written)}))
    )
    last = result.evals[-1]
    # one computation, but merged products or none: float32 and bfloat16 sums in another order
    assert again["loss"] == pytest.approx(last.loss, rel=1e-5 if dtype == "float32" else 0.05)
