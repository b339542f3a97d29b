"""A tiny model on disk and separable reviews, for baselines and searches that run whole."""

import json
from pathlib import Path
from typing import Any

from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig

WORDS = (" great", " terrible")


def base(folder: Path, name: str = "llama") -> Path:
    """A tiny model and its byte tokenizer, as a hub model would be."""
    tiny(name).save_pretrained(folder)
    byte_tokenizer(words=WORDS).save_pretrained(folder)
    return folder


def reviews(folder: Path, *, train: int = 24, validation: int = 16) -> Path:
    """`sst2` rows whose label can be told from their second word."""
    folder.mkdir()
    for split, count in (("train", train), ("validation", validation)):
        rows = [
            {"sentence": f"{'good' if n % 2 else 'bad'} {n}{split[0]}", "label": n % 2} for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config(model: Path, data: Path, **changes: Any) -> MeZOConfig:
    values = dict(model=str(model), task="sst2", data=str(data), batch_size=4, num_steps=6, seed=2)
    return MeZOConfig.build(**{**values, **changes})
