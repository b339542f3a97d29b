"""The state of an optimizer is written down and read again, and the run goes on to the same bits."""

import io
from typing import Any

import pytest
import torch
from torch import nn

import mezo
from mezo.errors import MezoError
from mezo.optimizers import OPTIMIZERS, Adam, Momentum
from mezo.types import Direction, Scaling, Update
from mezo.weights.weights import Weights

UPPER = Scaling("upper", (1.0, 0.0))
UPDATES = [
    Update(step, 1e-2, (Direction(2 * step, 1.0, UPPER), Direction(2 * step + 1, -0.5)), 2)
    for step in range(6)
]


def saved_and_loaded(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # what unpickling without running code allows


def weights_of(**shapes: tuple[int, ...]) -> Weights:
    return Weights([(name, torch.ones(shape, dtype=torch.bfloat16)) for name, shape in shapes.items()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_survives(name: str) -> None:
    weights, optimizer = weights_of(a=(30, 20), b=(10,)), OPTIMIZERS[name]()
    state = optimizer.init(weights)
    for number, update in enumerate(UPDATES):
        if number == 3:
            state = optimizer.unpack(weights, saved_and_loaded(optimizer.pack(state)))
        state = optimizer.apply_(weights, state, update)
    other = weights_of(a=(30, 20), b=(10,))
    state = optimizer.init(other)
    for update in UPDATES:
        state = optimizer.apply_(other, state, update)
    assert weights.checksum() == other.checksum()


@pytest.mark.parametrize("optimizer", [Momentum(), Adam()])
def test_moments_of_other_weights_are_an_error(optimizer: Any) -> None:
    packed = optimizer.pack(optimizer.init(weights_of(a=(3, 2))))
    with pytest.raises(MezoError, match=r"moments of shape \(3, 2\) for a, expected \(2, 3\)"):
        optimizer.unpack(weights_of(a=(2, 3)), packed)
    with pytest.raises(MezoError, match=r"no moments for b, expected \(2, 3\)"):
        optimizer.unpack(weights_of(b=(2, 3)), packed)


def loop(steps: int, optimizer: Any, *, break_at: int | None = None) -> list[float]:
    """mezo.MeZO in a loop of one's own, begun anew from a file at `break_at`."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 1), torch.randn(32, 4)
    losses, opt = [], mezo.MeZO(model, lr=1e-2, eps=1e-3, weight_decay=0.1, optimizer=optimizer)
    for number in range(steps):
        if number == break_at:
            state = saved_and_loaded(opt.state_dict())
            opt = mezo.MeZO(model, optimizer=optimizer)
            opt.load_state_dict(state)
        losses.append(opt.step(lambda: (model(x) - x.sum(1, keepdim=True)).square().mean()))
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_torch_optimizer_goes_on_from_its_state(name: str) -> None:
    losses = loop(30, name)
    assert losses == loop(30, name, break_at=7)
    assert losses[-1] < losses[0]


def test_the_torch_optimizer_takes_an_optimizer_with_settings() -> None:
    assert loop(5, Adam(beta2=0.5)) != loop(5, "adam")
    assert loop(5, Adam()) == loop(5, "adam")


def test_the_torch_optimizer_refuses_another_ones_state() -> None:
    model = nn.Linear(3, 1)
    state = mezo.MeZO(model, optimizer="adam").state_dict()
    with pytest.raises(MezoError, match="the state is one of Adam, this optimizer is SGD"):
        mezo.MeZO(model).load_state_dict(state)
    with pytest.raises(MezoError, match="unknown optimizer 'adm'; did you mean 'adam'"):
        mezo.MeZO(model, optimizer="adm")
