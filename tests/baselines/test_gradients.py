"""The differentiable objectives are the objectives, and their gradients are torch's own."""

import pytest
import torch
from tests.tiny_models import ARCHITECTURES, MASKED, tiny

from mezo.baselines.gradients import DIFFERENTIABLE, loss_of, padded
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example, pose

BATCH = [
    Example((5, 6, 7, 8), ((9,), (10, 11)), 1),
    Example((5, 6), ((12, 13, 14), (15,), (16, 17)), 0),
    Example((20, 21, 22, 23, 24), ((9,), (10,)), 0, answers=(0, 1)),
]
MASKED_BATCH = [
    Example((5, 3, 7, 8), ((9,), (10,)), 1, mask_position=1),
    Example((5, 6, 3), ((12,), (13,), (14,)), 0, mask_position=2),
]


def by_hand(model: torch.nn.Module, objective: str, batch: list[Example]) -> float:
    """Each candidate fed by itself, unpadded, its log-probabilities read off logits of all positions."""
    posed_rows = []
    for example in batch:
        for candidate in example.candidates:
            row = example.prompt if example.mask_position is not None else example.prompt + candidate[:-1]
            logits = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
            first = len(example.prompt) - 1 if example.mask_position is None else example.mask_position
            posed_rows.append([float(logits[first + i, token]) for i, token in enumerate(candidate)])
    posed = pose(batch)
    flat = torch.tensor([x for row in posed_rows for x in row], dtype=torch.float64)
    return OBJECTIVES[objective](posed, flat.numpy())


@pytest.mark.parametrize("objective", DIFFERENTIABLE)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_the_objective_itself(name: str, objective: str) -> None:
    model, batch = tiny(name), MASKED_BATCH if name in MASKED else BATCH
    posed = pose(batch, answers_only=OBJECTIVES[objective].answers_only)
    with torch.no_grad():
        found = float(loss_of(model, posed, OBJECTIVES[objective], pad=0))
        expected = by_hand(model, objective, batch)
    # float32 logits of order 10 through two layers, padded or not: some tens of roundings of 6e-8 * 10
    assert found == pytest.approx(expected, abs=5e-5)


def test_the_gradient_is_that_of_cross_entropy() -> None:
    """Candidates of one token on prompts of one length: torch's cross_entropy over their logits."""
    batch = [Example((5, 6, 7 + n), ((9,), (10,), (11,)), n % 3) for n in range(4)]
    grads = []
    for ours in (True, False):
        model = tiny("llama").requires_grad_(True)
        if ours:
            loss = loss_of(model, pose(batch), OBJECTIVES["candidate-ce"], pad=0)
        else:
            ids = torch.tensor([e.prompt for e in batch])
            logits = model(input_ids=ids).logits[:, -1, [9, 10, 11]]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([e.answer for e in batch]))
        loss.backward()
        grads.append([p.grad for p in model.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        assert mine is not None
        # the same sum in another order: float32's 1.2e-7 of the tensor's largest element, tens of times
        torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-6 * float(theirs.abs().max()))


def test_rows_are_padded_on_the_right() -> None:
    ids, mask = padded([(4, 5), (6,)], pad=1)
    assert ids.tolist() == [[4, 5], [6, 1]]
    assert mask.tolist() == [[1, 1], [1, 0]]
