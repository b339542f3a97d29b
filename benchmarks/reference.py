"""A step of the published reference implementation, to compare with.

Our own rendering of the procedure of princeton-nlp/MeZO: the examples are right-padded, the model
returns logits of every position, z is drawn again for every tensor from torch's generator, and theta
walks +eps, -2 eps, +eps in place and then takes the step.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from mezo.objectives import LogprobObjective
from mezo.scoring import Example, ScoringBatch, pose


class Padded:
    """The input of a plain forward pass: a batch of rows, right-padded, with a mask.

    The rows are those of `mezo.scoring.pose`: candidates of one token cost one row an example, where
    the published code has a row for each. So the comparison is of how rows are computed, not of how many.
    """

    def __init__(
        self,
        batch: Sequence[Example],
        objective: LogprobObjective,
        pad: int,
        device: torch.device | str = "cpu",
    ):
        self.objective = objective
        self.posed: ScoringBatch = pose(batch, answers_only=objective.answers_only)
        rows = self.posed.rows
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad)  # (B, T)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        self.ids, self.mask = ids.to(device), mask.to(device)
        self.row = torch.from_numpy(self.posed.query_row).to(device)
        self.position = torch.from_numpy(self.posed.query_position).to(device)
        self.token = torch.from_numpy(self.posed.query_token).to(device)

    def logits(self, model: Any) -> torch.Tensor:
        """(B, T, V) of one bare forward pass."""
        with torch.no_grad():
            return model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits

    def loss(self, model: Any) -> torch.Tensor:
        """The objective from logits of every position, in the model's own type.

        Answer tokens: cross-entropy over all positions, those that are not scored left out by their
        label, as the published code does it. Other objectives: the log-softmax of every position, from
        which the scored tokens are gathered (its training "as classification").
        """
        logits = model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits
        if self.objective.answers_only:
            labels = torch.full_like(self.ids, -100)
            labels[self.row, self.position] = self.token
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        logprobs = logits.log_softmax(-1)[self.row, self.position, self.token]
        return torch.tensor(self.objective(self.posed, logprobs.double().cpu().numpy()))


@torch.no_grad()
def reference_step(
    parameters: Iterable[torch.Tensor],
    loss_of: Callable[[], torch.Tensor],
    *,
    lr: float,
    eps: float,
    seed: int,
) -> float:
    """One MeZO step on `parameters` in place; the projected gradient."""
    tuned = list(parameters)

    def walk(scale: float) -> None:
        torch.manual_seed(seed)
        for p in tuned:
            z = torch.normal(mean=0, std=1, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
            p.data = p.data + scale * z * eps

    walk(1)
    plus = float(loss_of())
    walk(-2)
    minus = float(loss_of())
    walk(1)
    projected_grad = (plus - minus) / (2 * eps) if eps else 0.0
    torch.manual_seed(seed)
    for p in tuned:
        z = torch.normal(mean=0, std=1, size=p.data.size(), device=p.data.device, dtype=p.data.dtype)
        p.data = p.data - lr * (projected_grad * z)
    return projected_grad
