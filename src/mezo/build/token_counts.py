"""Which tokens the examples of a head start are made of, and along what the input embedding tells the head of a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mezo.build.slopes import slopes_of
from mezo.scoring import Example

RARER = 0.25  # a token counts by this power of how rare it is (tried: 0, 0.25, 0.5)
WEIGHTS = (0.3, 1.0, 3.0)  # tokens against what the blocks read, in the order in which they are tried
_MOST = 1 << 14  # tokens, those of the most prompts
HEARD = 32  # examples that are differentiated
_FEWEST = 8  # of them
_ROOM = 1 << 28  # bytes for what a differentiated example keeps of all blocks, or
_SHARE = 20  # this part of the weights
_KEPT = 24  # values for each of a block's H that a position keeps, about


@dataclass(frozen=True)
class TokenCounts:
    """What N prompts are made of.

    Args:
        tokens: (n,) int64, those that are not in all prompts, nor in a candidate; the smallest first.
        rarity: (n,) float32, how much a token counts.
        features: (N, n) float32, a token's share of the prompt, times its rarity.
    """

    tokens: torch.Tensor
    rarity: torch.Tensor
    features: torch.Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "TokenCounts | None":
        """None where no token is left."""
        at = torch.tensor([n for n, e in enumerate(examples) for _ in e.prompt])
        tokens, place = torch.unique(
            torch.tensor([t for e in examples for t in e.prompt]), return_inverse=True
        )
        seen = torch.bincount(torch.unique(torch.stack([at, place]), dim=1)[1], minlength=len(tokens))
        words = torch.tensor([t for c in examples[0].candidates for t in c])
        telling = torch.nonzero((seen < len(examples)) & ~torch.isin(tokens, words)).squeeze(1)
        if not len(telling):
            return None
        kept = telling[torch.argsort(seen[telling], descending=True, stable=True)[:_MOST]].sort().values
        column = torch.full((len(tokens),), -1)
        column[kept] = torch.arange(len(kept))
        taken = column[place] >= 0
        counts = torch.zeros(len(examples), len(kept))
        counts.index_put_((at[taken], column[place[taken]]), torch.tensor(1.0), accumulate=True)
        rarity = (len(examples) / seen[kept].float()) ** RARER
        return cls(tokens[kept], rarity, counts / counts.sum(1, keepdim=True).clamp(min=1) * rarity)

    def says(self, change: torch.Tensor) -> torch.Tensor:
        """(n, C) float32 what a token says if all of a prompt are this one, for (N, C) weights of the examples.

        Of C words only the differences count, so a token says nothing on average.
        """
        found = (self.features.T @ change.float()) * self.rarity[:, None]
        return (found - found.mean(1, keepdim=True)).contiguous()


def along_of(
    model: Any,
    embedding: torch.nn.Module,
    examples: Sequence[Example],
    change: torch.Tensor,
    tokens: torch.Tensor,
) -> tuple[torch.Tensor | None, int]:
    """(E, C) float32: what all tokens of a prompt have to gain for each label word's logit to rise by 1 against the others.

    By the mean slopes of some prompts, short enough that what the blocks keep of one is little against the weights. None
    where there are too few of these, or the model is not differentiable. And how many prompts were differentiated.

    Args:
        model: at the weights to start from.
        embedding: of the inputs.
        examples: the first of them that are short enough are used.
        change: (C, H) of the label words' rows, which is not in the model.
        tokens: that may gain.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    config = model.config.get_text_config()
    each = _KEPT * change.shape[1] * next(model.parameters()).element_size()
    most = max(_ROOM, weights // _SHARE) // (each * max(1, getattr(config, "num_hidden_layers", 1)))
    short = [e for e in examples if len(e.prompt) <= most][:HEARD]
    if len(short) < _FEWEST:
        return None, 0
    slopes, found = slopes_of(model, embedding, change), []
    for n, example in enumerate(short):
        slope = slopes(example)
        if slope is None:
            return None, n + 1
        gaining = torch.isin(torch.tensor(example.prompt), tokens)
        found.append(slope[:, gaining].sum(1))
    mean = torch.stack(found).mean(0)
    # of one rank less than there are words, to the digits of float32
    along = torch.linalg.pinv(mean - mean.mean(0, keepdim=True), rtol=1e-4)
    return (along.contiguous() if bool(along.isfinite().all()) else None), len(short)
