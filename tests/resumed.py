"""A toy run to be broken off and resumed: its model, data and settings, and what must come out of it."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.toys import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.events import Observer
from mezo.runs.folder import RunFolder
from mezo.runs.result import TrainResult
from mezo.training.trainer import MeZOTrainer
from mezo.weights.fingerprint import fingerprint

ROWS = [
    {"sentence": s, "label": int(s.startswith("g"))}
    for s in ("gab", "hat", "gig", "hub", "get", "him", "god", "hen")
]
# what two runs may differ in: what a clock says
TIMES = ("seconds", "seconds_saved", "profile")


def base(folder: Path) -> Path:
    """A model of 9,000 parameters and its tokenizer, as a hub model would be."""
    tokenizer = byte_tokenizer(words=(" great", " terrible"))
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_for(base: Path, **changes: Any) -> MeZOConfig:
    values = dict(
        model=str(base),
        task="sst2",
        batch_size=3,
        num_steps=12,
        learning_rate=1e-3,
        schedule="linear",
        eval_every=5,
        snapshot_every=4,
        seed=2,
    )
    return MeZOConfig.build(**{**values, **changes})


def trainer(config: MeZOConfig | None, rows: Any = ROWS, **options: Any) -> MeZOTrainer:
    options = {"observer": Observer(), "artifacts": False, **options}
    train = MeZODataset(rows, task="sst2")
    validation = MeZODataset(ROWS[:4], task="sst2", split="validation")
    return MeZOTrainer(config, train=train, validation=validation, **options)


def resume(folder: Path, config: MeZOConfig | None = None, **options: Any) -> TrainResult:
    return trainer(config, resume=folder, **options).train()


class Copying(Observer):
    """Keeps the RUN folder as it is after each of these steps: as the disk would be after a kill -9 there."""

    def __init__(self, run: Path, into: Path, steps: tuple[int, ...]) -> None:
        self.run, self.into, self.steps = run, into, steps

    def on_step(self, record: Any) -> None:
        if record.step + 1 in self.steps:
            copy(self.run, self.into / str(record.step + 1))


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to, dirs_exist_ok=True, ignore_dangling_symlinks=True))


def what_counts(folder: Path, result: TrainResult) -> dict[str, Any]:
    """All that must be equal of two runs: trajectory and weights by their bytes, metrics apart from times."""
    run = RunFolder.open(folder)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {
        "trajectory": run.trajectory.read_bytes(),
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "weights": fingerprint(result.model.named_parameters()),
        "files": sorted(p.name for p in folder.iterdir()),
    }


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
