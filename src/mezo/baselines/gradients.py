"""Objectives that torch can differentiate, over the same rows and queries that MeZO's engines see."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mezo.objectives import LogprobObjective
from mezo.scoring import ScoringBatch
from mezo.util.registry import look_up


def loss_of(model: Any, posed: ScoringBatch, objective: LogprobObjective, pad: int) -> torch.Tensor:
    """The objective on a batch as a scalar with its graph; to rounding, what `objective` itself gives.

    Raises MezoError if the objective has no gradient.
    """
    loss = look_up(DIFFERENTIABLE, objective.name, "differentiable objective")
    return loss(posed, logprobs(model, posed, pad))


def logprobs(model: Any, posed: ScoringBatch, pad: int) -> torch.Tensor:
    """(Q,) float32 log-probabilities of a batch's queries, from one pass over right-padded rows.

    The head sees the scored positions alone: logits of all positions would take more memory than
    the rest of the graph, and backpropagation should not look worse than it need be.
    """
    device = next(model.parameters()).device
    ids, mask = (x.to(device) for x in padded(posed.rows, pad))
    place = posed.query_row * ids.shape[1] + posed.query_position
    unique, inverse = np.unique(place, return_inverse=True)
    kept, read, tokens = (torch.from_numpy(a).to(device) for a in (unique, inverse, posed.query_token))
    with _head_sees(model, kept):
        logits = model(input_ids=ids, attention_mask=mask).logits  # (1, U, V)
    return logits[0].float().log_softmax(-1)[read, tokens]


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) int64 token ids, filled up on the right, and their (B, T) attention mask."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


@contextmanager
def _head_sees(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Inside, the output embedding is given (1, U, H): the hidden states at `positions` of the flat batch."""

    def select(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden = given[0]
        return (hidden.reshape(1, -1, hidden.shape[-1])[:, positions],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _candidate_ce(posed: ScoringBatch, logprobs: torch.Tensor) -> torch.Tensor:
    """See `mezo.objectives.candidate_ce`: a score is the mean log-probability of a candidate's tokens."""
    device, count = logprobs.device, len(posed.candidate_example)
    owner = torch.from_numpy(posed.query_candidate).to(device)
    sums = logprobs.new_zeros(count).index_add(0, owner, logprobs)
    scores = sums / torch.bincount(owner, minlength=count)  # (C,)
    example = torch.from_numpy(posed.candidate_example).to(device)
    right = torch.from_numpy(posed.candidate_is_answer).to(device)
    everything = _log_sum_exp(scores, example, posed.num_examples)
    return (everything - _log_sum_exp(scores[right], example[right], posed.num_examples)).mean()


def _log_sum_exp(scores: torch.Tensor, example: torch.Tensor, num_examples: int) -> torch.Tensor:
    """(C,) scores, and the example of each, ascending -> (N,); every example has a score."""
    sizes = torch.bincount(example, minlength=num_examples)
    column = torch.arange(len(scores), device=scores.device) - (sizes.cumsum(0) - sizes)[example]
    table = scores.new_full((num_examples, int(sizes.max())), -torch.inf)
    return table.index_put((example, column), scores).logsumexp(1)


DIFFERENTIABLE: dict[str, Callable[[ScoringBatch, torch.Tensor], torch.Tensor]] = {
    "answer-ce": lambda posed, logprobs: -logprobs.mean(),
    "candidate-ce": _candidate_ce,
}
