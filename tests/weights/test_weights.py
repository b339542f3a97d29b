"""The tuned tensors: a step reaches all of them in one call, as it would one by one."""

import torch
from tests.noise.oracle import same_bits

from mezo import noise
from mezo.noise.where import Where
from mezo.types import Probe
from mezo.weights.weights import Weights


def named() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "layer.weight": torch.randn(40, 30, generator=generator),
        "norm.weight": torch.randn(30, generator=generator).bfloat16(),
        "half.weight": torch.randn(20, 70, generator=generator).bfloat16(),
        "scale": torch.tensor(1.5),
    }


def one_by_one(tensors: dict[str, torch.Tensor], decay: float) -> None:
    for name, tensor in tensors.items():
        noise.update_(
            tensor.view(1, -1),
            Where(noise.tensor_id(name)),
            [5, 6],
            [0.1, -0.2],
            decay=decay if tensor.dim() >= 2 else 1.0,
            rounding_seed=5,
        )


def test_an_update_is_that_of_each_tensor_and_decay_spares_vectors() -> None:
    for decay in (1.0, 0.9):
        tensors, expected = named(), named()
        Weights(tensors.items()).update_([5, 6], [0.1, -0.2], decay=decay)
        one_by_one(expected, decay)
        assert all(same_bits(tensors[name], expected[name]) for name in tensors)


def test_added_noise_is_that_of_each_tensor() -> None:
    tensors, expected = named(), named()
    Weights(tensors.items()).add_noise_(Probe(7, 1e-2))
    for name, tensor in expected.items():
        flat = tensor.view(1, -1)
        noise.perturb(flat, Where(noise.tensor_id(name)), 7, 1e-2, flat)
    assert all(same_bits(tensors[name], expected[name]) for name in tensors)


def test_a_parameter_whose_memory_was_replaced_is_still_the_one_that_is_tuned() -> None:
    """As `module.to(dtype)` does."""
    parameter = torch.nn.Parameter(torch.zeros(3, 50))
    weights = Weights([("w", parameter)])
    weights.update_([1], [1.0])
    once, old = parameter.detach().clone(), parameter.data
    parameter.data = torch.zeros(3, 50)
    weights.update_([1], [1.0])
    assert same_bits(parameter.detach(), once)
    assert same_bits(old, once)
