"""A model in two parts computes what the whole one does, and moves to the same bits; parts are threads here."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.parallel.ranks import in_threads, toy_batches, toy_engine, toy_model
from tests.tiny_models import tiny

from mezo.errors import MezoError
from mezo.parallel.group import ProcessGroup
from mezo.parallel.tensor_parallel import cut_, make_whole_
from mezo.types import Direction, Probe, Update

PROBES = [Probe(11, 1e-3), Probe(11, -1e-3), Probe(12, 1e-3), Probe(12, -1e-3)]
UPDATE = Update(0, 1e-2, (Direction(11, 0.5), Direction(12, -0.25)), 2)


def whole(dtype: torch.dtype) -> tuple[list[float], dict[str, torch.Tensor]]:
    engine = toy_engine(toy_model(dtype))
    losses = engine.losses(toy_batches(1)[0], PROBES)
    engine.apply(UPDATE)
    return losses, engine.model.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_parts_are_the_whole(dtype: torch.dtype) -> None:
    expected, state = whole(dtype)

    def work(group: ProcessGroup) -> tuple[list[float], Any, int]:
        model = toy_model(dtype)
        cut_(model, group.part, group.tensor, group.add_up)
        engine = toy_engine(model)
        losses = engine.losses(toy_batches(1)[0], PROBES)
        engine.apply(UPDATE)
        held = sum(t.tensor.numel() for t in engine.weights.tunables)
        make_whole_(model, group.parts)
        return losses, model, held

    (first, model, held), (second, _, also_held) = in_threads(2, work, tensor=2)
    assert first == second
    # Half the sum of a layer is rounded before the halves are added: in float32 2^-24 of terms of order 1, a
    # few times in 4 layers, on log-probabilities of order 10; in bfloat16 2^-8 of the same.
    assert np.allclose(first, expected, rtol=0, atol=4e-5 if dtype == torch.float32 else 0.5)
    cut = sum(p.numel() for n, p in state.items() if "_proj" in n)
    everything = sum(p.numel() for p in state.values())
    assert held == also_held == everything - cut // 2
    found = model.state_dict()
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor), name  # noise, update and rounding by the place in the whole


def test_the_whole_model_works_again() -> None:
    ids = torch.tensor([[5, 6, 7]])
    expected = toy_model()(input_ids=ids).logits

    def work(group: ProcessGroup) -> Any:
        model = toy_model()
        cut_(model, group.part, group.tensor, group.add_up)
        make_whole_(model, group.parts)
        return model(input_ids=ids).logits if group.leads else None

    assert torch.equal(in_threads(2, work, tensor=2)[0], expected)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("llama", 4, "4 attention heads with 2 heads of keys and values cannot be shared out evenly"),
        ("gpt2", 2, "has no plan in transformers"),
    ],
)
def test_what_cannot_be_cut_says_so_and_stays_whole(name: str, count: int, message: str) -> None:
    model = tiny(name)
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(MezoError, match=message):
        cut_(model, 0, count, lambda tensor: None)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


def test_parts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(MezoError, match="are off by"):
        cut_(toy_model(), 0, 2, lambda tensor: None)  # nobody else adds his half
