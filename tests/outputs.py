"""Small finished runs, for what is done with their weights."""

from pathlib import Path
from typing import Any

from tests.resumed import base, config_for, trainer
from tests.toys import byte_tokenizer
from transformers import AutoModelForCausalLM


def finished(folder: Path, **settings: Any) -> Path:
    """FOLDER/run, tuned in three long steps from FOLDER/base, so that its answers differ from the base's."""
    more = {
        "num_steps": 3,
        "learning_rate": 0.5,
        "eval_every": 0,
        "snapshot_every": None,
        "schedule": "constant",
    }
    config = config_for(base(folder / "base"), **{**more, **settings})
    trainer(config, output=folder / "run", artifacts=True).train()
    return folder / "run"


def tiny_chat(folder: Path) -> Path:
    """A model whose tokenizer has a chat template."""
    AutoModelForCausalLM.from_pretrained(base(folder)).save_pretrained(folder)
    tokenizer = byte_tokenizer(words=(" great", " terrible"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder
