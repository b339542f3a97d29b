"""Momentum and Adam against NumPy, to the bit: float32, every operation rounded by itself, in one order."""

import numpy as np
import pytest
import torch

from mezo import noise
from mezo.noise import spec
from mezo.optimizers import Adam, Momentum, Optimizer
from mezo.optimizers.adam import root_
from mezo.types import Direction, Scaling, Update
from mezo.weights.weights import Weights

F = np.float32
Array = np.ndarray
ONES = Scaling("all", (1.0, 1.0))
FIRST = Scaling("matrix", (2.0, 0.0))
UPDATES = [
    Update(0, 0.1, (Direction(11, 3.0), Direction(12, -1.5)), 2),
    Update(1, 0.05, (Direction(13, -0.25, FIRST), Direction(14, 2.0, ONES)), 2),
    Update(2, 0.2, (Direction(15, 0.7),), 1),
    Update(3, 0.1, (Direction(16, 0.0), Direction(17, -4.0)), 4),
]
FORMS = {torch.bfloat16: spec.BFLOAT16, torch.float16: spec.FLOAT16}


def start(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "m": torch.randn(37, 23, generator=generator).to(dtype),
        "v": torch.randn(29, generator=generator).to(dtype),
    }


def plus_gradient(total: Array, name: str, place: int, update: Update, share: float = 1.0) -> Array:
    """total + share * mean_k g_k z_k in float32, summed in order."""
    size = total.size
    for d in update.directions:
        factor = d.scaling.factors[place] if d.scaling else 1.0
        if factor:
            z = spec.noise(np.arange(size), noise.tensor_id(name), d.seed)
            total = total + F(share / update.n * d.projected_grad * factor) * z
    return total


def stored(x: Array, name: str, dtype: torch.dtype, seed: int) -> Array:
    if dtype == torch.float32:
        return x
    bits = spec.rounding_bits(np.arange(x.size), noise.tensor_id(name), seed)
    return spec.rounded(x, FORMS[dtype], bits)


def expected(rule: str, x: Array, name: str, place: int, dtype: torch.dtype, decay: float) -> Array:
    """theta after UPDATES, with beta1 = 0.9 and beta2 = 0.95; decay: the weight decay of this tensor."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, update in enumerate(UPDATES, 1):
        lr = update.learning_rate
        if rule == "momentum":
            m = plus_gradient(m * F(0.9), name, place, update, 1 - 0.9)
            change = m * F(-lr)
        else:
            g = plus_gradient(np.zeros_like(x), name, place, update)
            m = m * F(0.9) + g * F(1 - 0.9)
            v = v * F(0.95) + g * g * F(1 - 0.95)
            root = np.sqrt(v * F(1 / (1 - 0.95**t))) + F(1e-8)
            change = m / root * F(-lr / (1 - 0.9**t))
        x = stored(x * F(1 - lr * decay) + change, name, dtype, update.directions[0].seed)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_against_numpy(rule: str, dtype: torch.dtype) -> None:
    tensors = start(dtype)
    weights = Weights(tensors.items())
    rules: dict[str, type[Optimizer]] = {"momentum": Momentum, "adam": Adam}
    optimizer = rules[rule](weight_decay=0.5)
    state = optimizer.init(weights)
    for update in UPDATES:
        state = optimizer.apply_(weights, state, update)
    for place, (name, before) in enumerate(start(dtype).items()):
        x = before.float().numpy().reshape(-1)
        decay = 0.5 if before.dim() >= 2 else 0.0  # vectors are spared
        wanted = expected(rule, x, name, place, dtype, decay)
        found = tensors[name].float().numpy().reshape(-1)
        np.testing.assert_array_equal(found, wanted)


def test_matched_rounding_is_stochastic_where_an_update_is_no_sum_of_noise() -> None:
    found = []
    for rounding in ("matched", "stochastic", "nearest"):
        tensors = start(torch.bfloat16)
        weights = Weights(tensors.items())
        optimizer = Adam(rounding=rounding)
        optimizer.apply_(weights, optimizer.init(weights), Update(0, 1e-4, (Direction(1, 1.0),), 1))
        found.append(weights.checksum())
    assert found[0] == found[1] != found[2]


def test_square_roots_and_quotients_are_those_of_ieee_754() -> None:
    """Adam leans on it: a run on another device is the same to the bit."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1 << 20, generator=generator).mul_(1e3).pow_(3) for _ in range(2))
    np.testing.assert_array_equal(torch.div(a, b).numpy(), a.numpy() / b.numpy())
    exact = np.sqrt(a.double().numpy()).astype(F)  # 53 bits are enough for the root of 24 to round once
    np.testing.assert_array_equal(root_(a).numpy(), exact)


@pytest.mark.parametrize("cut", [1, 100, 512, 1 << 20])
@pytest.mark.parametrize("rule", [Momentum, Adam])
def test_blocks_do_not_show(rule: type[Optimizer], cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> str:
        weights = Weights(start(torch.bfloat16).items())
        optimizer = rule()
        state = optimizer.init(weights)
        for update in UPDATES:
            state = optimizer.apply_(weights, state, update)
        return weights.checksum()

    whole = run()
    monkeypatch.setattr("mezo.weights.weights.block_size", lambda device: cut)
    assert run() == whole
