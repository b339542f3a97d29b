"""`dtype: auto` is settled when a run starts: what is recorded, resumed and replayed is the dtype itself."""

from pathlib import Path

import torch
from tests.resumed import ROWS, base, config_for, resume, trainer
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer
from transformers import AutoModelForCausalLM

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.resume.replay import replay
from mezo.runs.folder import RunFolder
from mezo.training.trainer import MeZOTrainer


def test_a_run_of_auto_is_one_of_the_dtype(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    options = dict(num_steps=4, eval_every=0, schedule="constant")
    config = config_for(folder, dtype="auto", **options)
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    assert result.config.dtype == "bfloat16"
    assert MeZOConfig.load(RunFolder(tmp_path / "run").config).dtype == "bfloat16"
    same = trainer(config_for(folder, dtype="bfloat16", **options), output=tmp_path / "same").train()
    assert same.losses == result.losses
    further = resume(tmp_path / "run", config.model_copy(update={"num_steps": 6}))
    assert len(further.losses) == 6
    replay(tmp_path / "run", output=tmp_path / "again")
    assert (tmp_path / "again" / "model").is_dir()


def test_a_model_object_says_its_own(tmp_path: Path) -> None:
    config = config_for(tmp_path, dtype="auto", num_steps=1, eval_every=0)
    given = MeZOTrainer(
        config,
        train=MeZODataset(ROWS, task="sst2"),
        model=tiny("llama", torch.bfloat16),
        tokenizer=byte_tokenizer(words=(" great", " terrible")),
    )
    assert given.config.dtype == "bfloat16"
