"""Whether a chat model learns to stop: the share of its answers that end by themselves, before tuning and after.

Tunes LoRA on examples/data/support-chat.jsonl, whose answers are a sentence or two without a prompt that asks for short
ones, and lets the model answer held-out tickets greedily, with 64 tokens at most.

    python -m benchmarks learns-to-stop [--steps 300] [--learning-rate 1e-3] [--seeds 0 1 2] [--json FILE]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mezo import MeZOConfig, MeZODataset, MeZOTrainer
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.models.load import load
from mezo.scoring import Example

DATA = Path(__file__).parent.parent / "examples" / "data" / "support-chat.jsonl"
LONGEST = 64
_AT_ONCE = 16


@torch.no_grad()
def stopped(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
    """The share of greedy answers to the examples' prompts that end with the end token within LONGEST tokens."""
    ended = 0
    for start in range(0, len(examples), _AT_ONCE):
        prompts = [list(e.prompt) for e in examples[start : start + _AT_ONCE]]
        width = max(map(len, prompts))
        pad = tokenizer.pad_token_id
        rows = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        written = model.generate(
            rows,
            attention_mask=mask,
            max_new_tokens=LONGEST,
            do_sample=False,
            pad_token_id=pad,
            use_cache=True,
        )[:, width:]
        ended += int((written == tokenizer.eos_token_id).any(dim=1).sum())
    return ended / len(examples)


def measured(config: MeZOConfig) -> dict[str, Any]:
    """Shares before and after, and the losses on the held-out rows."""
    train = training_set(config, task_of(config))
    held_out = validation_set(config, train.task)
    assert isinstance(held_out, MeZODataset)
    base = load(config.model, config.dtype)
    asked = held_out.encode(base.tokenizer, base.kind, config.max_length)
    before = stopped(base.model, base.tokenizer, asked)
    result = MeZOTrainer(config, model=base.model, tokenizer=base.tokenizer).train()
    after = stopped(result.model, result.tokenizer, asked)
    return {
        "seed": config.seed,
        "train_rows": len(train),
        "held_out_rows": len(held_out),
        "before": before,
        "after": after,
        "loss_before": result.metrics["loss_before"],
        "loss_after": result.metrics["loss_after"],
        "seconds": result.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", default="auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    for seed in given.seeds:
        config = MeZOConfig.build(
            model=given.model,
            data=str(DATA),
            split_sizes="20%",
            tuning="lora",
            learning_rate=given.learning_rate,
            schedule="linear",
            num_steps=given.steps,
            batch_size=16,
            seed=seed,
        )
        found.append(measured(config))
        print(json.dumps(found[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
