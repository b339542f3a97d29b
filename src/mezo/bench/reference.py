"""A step as the published reference implementation takes it, to be measured against.

Our own rendering of the procedure of princeton-nlp/MeZO: z is drawn again for every tensor from
torch's generator, theta walks +eps, -2 eps, +eps in place, and then takes the step.
"""

from collections.abc import Callable
from typing import Any

import torch


@torch.no_grad()
def reference_step(
    model: Any, loss_of: Callable[[], torch.Tensor], *, lr: float, eps: float, seed: int
) -> float:
    """One MeZO step in place; the projected gradient."""

    def walk(scale: float) -> None:
        torch.manual_seed(seed)
        for p in model.parameters():
            z = torch.normal(mean=0, std=1, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
            p.data = p.data + scale * z * eps

    walk(1)
    plus = float(loss_of())
    walk(-2)
    minus = float(loss_of())
    walk(1)
    projected_grad = (plus - minus) / (2 * eps)
    torch.manual_seed(seed)
    for p in model.parameters():
        z = torch.normal(mean=0, std=1, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
        p.data = p.data - lr * (projected_grad * z)
    return projected_grad
