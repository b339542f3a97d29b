"""One ridge regression on what the head and the later blocks' matrices read, and on the tokens: the deeper half of
`start=linear-probe`.

There are many more features than examples, so it is solved in the examples' own space (the kernel trick).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mezo.build.label_fit import FrozenFeatures
from mezo.build.token_counts import TokenCounts

HEAD = 0.3  # weight of the head's features against the matrices', which know more (tried: 0, 0.1, 1)
MOST = 4096  # examples: the time of the fit goes with their cube


@dataclass(frozen=True)
class BlockFit:
    """N examples, and the way back from a regression on them to the head, the matrices and the tokens.

    Args:
        known: the examples; their features are as many as there are examples at most, float64.
        back: (N, features) weights of the examples for a change along each feature.
        hidden: (N, H) what the head reads, each feature divided by its size.
        sizes: (H,) of these.
        inputs: (N, width) what each matrix reads, by name.
        share: what each of their features counts, its size being 1: all together are worth H, and the head's HEAD H.
        counts: of the tokens; None without them.
        said: what these features count.
    """

    known: FrozenFeatures
    back: torch.Tensor
    hidden: torch.Tensor
    sizes: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    share: float
    counts: TokenCounts | None = None
    said: float = 0.0

    @classmethod
    def of(
        cls,
        known: FrozenFeatures,
        inputs: Mapping[str, torch.Tensor],
        counts: TokenCounts | None = None,
        weight: float = 0.0,
    ) -> "BlockFit | None":
        """None where nothing was read, or what is not finite. weight: what all tokens count against the matrices."""
        if not inputs:
            return None
        sizes = _sizes(known.hidden)
        hidden = known.hidden / sizes
        share = known.hidden.shape[1] / sum(x.shape[1] for x in inputs.values())
        kernel = HEAD * (hidden @ hidden.T)
        for x in inputs.values():
            alike = x.float() / _sizes(x)
            kernel += share * (alike @ alike.T).double()
        said = 0.0
        if counts is not None:
            alike = (counts.features @ counts.features.T).double()
            said = weight * known.hidden.shape[1] / max(float(alike.diagonal().mean()), 1e-12)
            kernel += said * alike
        if not bool(kernel.isfinite().all()):
            return None
        energy, basis = torch.linalg.eigh(kernel)
        kept = energy > 1e-9 * energy.max()  # below, float32 inputs have no digits
        root, basis = energy[kept].sqrt(), basis[:, kept]
        ones = torch.ones(len(root), dtype=torch.float64)
        seen = replace(known, hidden=basis * root, scale=ones)
        return cls(seen, basis / root, hidden, sizes, inputs, share, counts, said)

    def rows(self, change: torch.Tensor) -> torch.Tensor:
        """(C, H) the change of the label words' rows that a change along the features has in it."""
        return (HEAD * (self.hidden.T @ (self.back @ change.T)).T / self.sizes).contiguous()

    def reads(self, change: torch.Tensor) -> dict[str, torch.Tensor]:
        """(C, width) float32 for each matrix: what it reads as evidence."""
        weights = (self.back @ change.T).float()
        found = {}
        for name, x in self.inputs.items():
            sizes = _sizes(x)
            found[name] = (self.share * (weights.T @ (x.float() / sizes)) / sizes).contiguous()
        return found

    def says(self, change: torch.Tensor) -> torch.Tensor:
        """(n, C) float32 what the tokens say."""
        assert self.counts is not None
        return self.counts.says(self.said * (self.back @ change.T))


def _sizes(features: torch.Tensor) -> torch.Tensor:
    wide = features if features.dtype == torch.float64 else features.float()
    return wide.square().mean(0).sqrt().clamp(min=1e-12 if wide.dtype == torch.float64 else 1e-6)
