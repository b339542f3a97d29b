"""What the output embedding reads at the scored positions, beside the log-probabilities that come of it."""

from typing import Any

import numpy as np
import torch

from mezo.engines.transformers.engine import TransformersEngine
from mezo.scoring import ScoringBatch


@torch.no_grad()
def head_inputs(engine: TransformersEngine, batch: ScoringBatch) -> tuple[np.ndarray, np.ndarray]:
    """At theta: (Q,) log-probabilities, float64, and (Q, H) hidden states, float32.

    The engine's own passes, with its shortcuts, so that both are those of the run.
    """
    read: list[torch.Tensor] = []

    def keep(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        read.append(inputs[0].detach())

    hook = engine.head_module.register_forward_pre_hook(keep)
    try:
        logprobs = engine.logprobs(batch)[0]
    finally:
        hook.remove()
    hidden = np.empty((len(logprobs), read[0].shape[-1]), dtype=np.float32)
    for share, states in zip(engine.laid_out(batch).shares, read, strict=True):
        flat = states.reshape(-1, states.shape[-1])[share.queries.positions]
        hidden[share.mine] = flat[share.queries.inverse].float().cpu().numpy()
    return logprobs, hidden
