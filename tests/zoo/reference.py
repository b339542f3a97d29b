"""What a model answers at theta + eps z, in the plainest way: written out, one row at a time, no cache, no padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mezo import noise
from mezo.noise.where import Where
from mezo.scoring import ScoringBatch
from mezo.types import Probe


def z_of(tunable: Any, seed: int) -> torch.Tensor:
    flat = torch.empty(1, tunable.tensor.numel())
    noise.fill_(flat, Where(tunable.tensor_id), seed)  # tests/noise holds it to the specification in NumPy
    return flat.view(tunable.tensor.shape)


@torch.no_grad()
def reference(
    model: Any,
    tunables: Sequence[Any],
    stored: Sequence[torch.dtype],
    batch: ScoringBatch,
    probe: Probe,
    company: int = 1,
) -> np.ndarray:
    """(Q,) log-probabilities. stored: the types that theta + eps z is rounded to. company: copies of each row."""
    theta = [t.tensor.detach().clone() for t in tunables]
    scale = torch.tensor(probe.scale, dtype=torch.float32)
    try:
        for t, dtype in zip(tunables, stored, strict=True):
            t.tensor.copy_((t.tensor.float() + scale * z_of(t, probe.seed)).to(dtype))
        rows = [torch.tensor([row] * company) for row in batch.rows]
        tables = [model(input_ids=row).logits[0].float().log_softmax(-1) for row in rows]
    finally:
        for t, kept in zip(tunables, theta, strict=True):
            t.tensor.copy_(kept)
    asked = zip(batch.query_row, batch.query_position, batch.query_token, strict=True)
    return np.array([float(tables[row][position, token]) for row, position, token in asked])
