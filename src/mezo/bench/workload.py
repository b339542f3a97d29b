"""The models and batches that benchmarks run on."""

from typing import Any

import torch

from mezo.config import MeZOConfig
from mezo.engines.transformers import TransformersEngine
from mezo.models import LoadedModel, load
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import Example
from mezo.tuning import tune

OPT_SHAPE = "opt-125m-shape"


def model_for(name: str, dtype: str) -> LoadedModel:
    """`opt-125m-shape`: OPT-125M with random weights; anything else is loaded."""
    if name != OPT_SHAPE:
        return load(name, dtype, "cpu")
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    model: Any = OPTForCausalLM(OPTConfig()).to(getattr(torch, dtype)).eval().requires_grad_(False)
    return LoadedModel(model, None, "causal", name)  # type: ignore[arg-type]  # no text goes in


def full_batch(vocabulary: int, *, batch_size: int = 16, length: int = 64) -> list[Example]:
    """Rows of `length` tokens of which every one after the first is scored."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(5, vocabulary, (batch_size, length), generator=generator).tolist()
    return [Example(tuple(row[:1]), (tuple(row[1:]),), 0) for row in rows]


def padded(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch as (B, T) ids and mask, right-padded: what a plain forward pass is given."""
    rows = [e.prompt + e.candidates[e.answer] for e in batch]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def engine_for(
    loaded: LoadedModel, *, tuning: str = "full", objective: str = "answer-ce"
) -> TransformersEngine:
    model, weights = tune(loaded.model, MeZOConfig.build(tuning=tuning, model=loaded.name))
    pad = 1 if loaded.tokenizer is None else loaded.pad_token_id
    return TransformersEngine(
        model, weights, OBJECTIVES[objective], SGD(), kind=loaded.kind, pad_token_id=pad
    )
