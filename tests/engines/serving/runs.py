"""Short runs on a tiny Llama by any engine, and what is compared of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.torch import load_file
from tests.toys import byte_tokenizer

import mezo
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.events import Observer
from mezo.runs import trajectory
from mezo.tasks import task_for
from mezo.training.trainer import MeZOTrainer

ROWS = [
    {"sentence": text, "label": int(text.startswith("g"))}
    for text in ("gabby", "hat on a hot day", "gig", "hub and spoke", "go on", "he is", "good", "hi") * 2
]
# of some 100 tokens, so that rows have whole blocks of an engine's cache in common
TEMPLATE = (
    "Someone who had seen the whole of it wrote these words, and meant them. Review: {sentence}\nIt was"
)
WORDS = (" great", " terrible")
LONGEST = 4.9  # |z| of the noise at most
LORA: dict[str, Any] = dict(tuning="lora", num_steps=20, learning_rate=1e-2, epsilon=1e-2)
FULL: dict[str, Any] = dict(tuning="full", num_steps=10, learning_rate=1e-4, epsilon=1e-3)


def tiny_llama(folder: Path, positions: int = 512) -> Path:
    """A checkpoint that two workers can share: 2 layers, 4 heads, 2 of keys and values."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(words=WORDS)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer) + -len(tokenizer) % 4,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trainer(
    model: Path | str, output: Path | None, observer: Observer | None = None, **settings: Any
) -> MeZOTrainer:
    """Of `sst2` under a long template; settings: of MeZOConfig."""
    values: dict[str, Any] = dict(
        model=str(model),
        task="sst2",
        template=TEMPLATE,
        label_words=list(WORDS),
        batch_size=4,
        max_length=256,
        seed=3,
    )
    config = MeZOConfig.build(**{**values, **settings})
    task = task_for("sst2", config.label_words, config.template)
    return MeZOTrainer(
        config, train=MeZODataset(ROWS, task=task), output=output, observer=observer or Observer()
    )


def train(model: Path | str, output: Path | None, **settings: Any) -> mezo.TrainResult:
    made = trainer(model, output, **settings)
    try:
        return made.train()
    finally:
        made.close()


def grads(result: mezo.TrainResult) -> np.ndarray:
    return np.array([step.projected_grads[0] for step in result.steps])


def rounding_of_a_slope(epsilon: float, layers: int = 2) -> float:
    """How far two programs' projected gradients may be apart, in float32.

    A log-probability near -6 is off by some units of 2^-22 in either program where there are two layers, and
    by as much more as there are more of them; a difference of two candidates' and its mean over a batch by
    2^-20 at most. That of two losses, over 2 epsilon.
    """
    return layers / 2 * 2 * 2**-20 / (2 * epsilon)


def assert_same_walk(a: mezo.TrainResult, b: mezo.TrainResult, layers: int = 2) -> None:
    """Slopes to the rounding of a loss, from equal starts; what was tuned to what the slopes account for."""
    assert _header(a)["base_fingerprint"] == _header(b)["base_fingerprint"]
    config = a.config
    apart = np.abs(grads(a) - grads(b))
    # the walks part by rate * apart * z a step, which is nothing beside what rounds the losses
    rounding = rounding_of_a_slope(config.epsilon, layers)
    assert apart.max() < rounding
    assert np.abs(grads(a)).max() > 100 * rounding
    mine, theirs = _weights(a), _weights(b)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        size = float(tensor.abs().max())
        # each step adds rate * apart * z, and rounds once
        bound = config.peak_rate * float(apart.sum()) * LONGEST + len(apart) * 2**-23 * size
        assert float((tensor - theirs[name]).abs().max()) <= bound, name


def _header(result: mezo.TrainResult) -> dict[str, Any]:
    assert result.trajectory is not None
    return trajectory.read(result.trajectory).header


def _weights(result: mezo.TrainResult) -> dict[str, torch.Tensor]:
    assert result.output is not None
    (file,) = result.output.glob("*/*.safetensors")
    return load_file(file)
