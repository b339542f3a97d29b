"""Moments kept beside the weights: float32 tensors of their shapes, under their names."""

from collections.abc import Mapping

import torch

from mezo.errors import MezoError
from mezo.weights.weights import Weights


def scale_(moments: Weights, factor: float) -> None:
    for t in moments.tunables:
        t.tensor.mul_(factor)


def pack(moments: Weights) -> dict[str, torch.Tensor]:
    return {t.name: t.tensor for t in moments.tunables}


def unpack(weights: Weights, packed: Mapping[str, torch.Tensor]) -> Weights:
    """Raises MezoError if the packed moments are not those of tensors like these."""
    moments = weights.zeros()
    for t in moments.tunables:
        found = packed.get(t.name)
        if found is None or found.shape != t.tensor.shape:
            what = "no moments" if found is None else f"moments of shape {tuple(found.shape)}"
            raise MezoError(
                f"the optimizer's state has {what} for {t.name}, expected {tuple(t.tensor.shape)}; "
                "it belongs to other weights"
            )
        t.tensor.copy_(found)
    return moments
