"""A toy model and toy reviews on disk, for commands that run whole."""

import json
from pathlib import Path

from tests.toys import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, set_seed


def model(folder: Path) -> Path:
    tokenizer = byte_tokenizer(words=(" great", " terrible"))
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reviews(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [
            {"sentence": f"film {i} was {'bad' if i % 2 else 'good'}", "label": 1 - i % 2} for i in range(8)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
