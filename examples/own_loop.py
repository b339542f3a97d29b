"""Fine-tune a causal language model in a loop of your own, with forward passes only."""

import argparse
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mezo

REVIEWS = [
    ("a quiet , generous film", " great"),
    ("two hours of noise", " terrible"),
    ("funny and warm from start to end", " great"),
    ("it never finds a story", " terrible"),
]


def load(model: str):
    """A model and its tokenizer; the built-in one needs no hub."""
    if model == "smollm2-135m":
        from mezo.models.load import load as built_in

        loaded = built_in(model, "float32", "cpu")
        return loaded.model.requires_grad_(True), loaded.tokenizer  # it comes frozen
    return AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)


def batch_of(tokenizer, reviews):
    """Padded token ids, and labels that are -100 but for the last token: the answer."""
    rows = [
        tokenizer(f"{text} It was", add_special_tokens=False).input_ids
        + tokenizer(answer, add_special_tokens=False).input_ids[-1:]
        for text, answer in reviews
    ]
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, len(row) - 1] = row[-1]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    model, tokenizer = load(given.model)
    model.eval()  # no dropout: it would add noise to the difference of two losses
    optimizer = mezo.MeZO(model, lr=1e-5, eps=1e-3, seed=0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=given.steps)
    drawn = random.Random(0)
    for step in range(given.steps):
        batch = batch_of(tokenizer, drawn.sample(REVIEWS, 2))
        loss = optimizer.step(lambda batch=batch: model(**batch).loss)  # two forward passes, no graph
        schedule.step()
        print(f"step {step}: loss {loss:.4f}")


if __name__ == "__main__":
    main()
