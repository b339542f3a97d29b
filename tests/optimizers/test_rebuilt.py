"""Moments rebuilt from the last seeds against moments that are stored."""

import numpy as np
import pytest
import torch

from mezo.optimizers import Adam, AdamRebuilt, Momentum, MomentumRebuilt, Optimizer
from mezo.optimizers.history import History
from mezo.types import Direction, Scaling, Update
from mezo.weights.weights import Weights

UPPER = Scaling("m", (1.0, 0.0))


def updates(count: int, *, rates: float = 1e-2, quiet: bool = False) -> list[Update]:
    """Two directions a step, every third only in the matrix. quiet: only the last step moves the weights."""
    slopes = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    return [
        Update(
            step,
            0.0 if quiet and step < count - 1 else rates,
            (
                Direction(2 * step, float(slopes[step, 0]), UPPER if step % 3 == 0 else None),
                Direction(2 * step + 1, float(slopes[step, 1])),
            ),
            2,
        )
        for step in range(count)
    ]


def moved(optimizer: Optimizer, taken: list[Update], dtype: torch.dtype = torch.float32) -> Weights:
    generator = torch.Generator().manual_seed(0)
    named = {"m": torch.randn(40, 30, generator=generator), "v": torch.randn(50, generator=generator)}
    weights = Weights([(name, tensor.to(dtype)) for name, tensor in named.items()])
    state = optimizer.init(weights)
    for update in taken:
        state = optimizer.apply_(weights, state, update)
    return weights


def values(weights: Weights) -> np.ndarray:
    return np.concatenate([t.flat()[0].double().numpy() for t in weights.tunables])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adam_is_the_same_to_the_bit_while_the_window_holds_every_step(dtype: torch.dtype) -> None:
    taken = updates(12)
    rebuilt = moved(AdamRebuilt(weight_decay=0.1, history=12), taken, dtype)
    assert rebuilt.checksum() == moved(Adam(weight_decay=0.1), taken, dtype).checksum()
    shorter = moved(AdamRebuilt(weight_decay=0.1, history=11), taken, dtype)
    assert shorter.checksum() != rebuilt.checksum()


@pytest.mark.parametrize("window", [5, 20, 80])
def test_adam_from_a_window_strays_no_further_than_the_betas_allow(window: int) -> None:
    """m^ and v^, the moments after bias correction, are means. With the weights of a window beta^i,
    i < K, and R the like mean of what came before it, the full mean is

        m^ = (1 - c) m'^ + c R,   c = beta^K (1 - beta^(t - K)) / (1 - beta^t) <= beta^K

    so |m^ - m'^| <= beta1^K (max G - min G), and |v^ - v'^| <= beta2^K max G^2, G over the steps.
    """
    count, lr = 130, 1.0
    taken = updates(count, rates=lr, quiet=True)
    still = moved(Adam(), [])
    change = values(moved(Adam(), taken)) - values(still)
    found = values(moved(AdamRebuilt(history=window), taken)) - values(still)

    gradients = []  # (steps, elements): what SGD at rate 1 takes away from zeros
    for update in taken:
        seeds = [d.seed for d in update.directions]
        zeros = still.zeros()
        slopes = [-d.projected_grad / update.n for d in update.directions]
        zeros.update_(seeds, slopes, scalings=[d.scaling for d in update.directions])
        gradients.append(-values(zeros))
    g = np.array(gradients)
    m = _mean(g, 0.9, count)
    v, v_near = (_mean(g**2, 0.95, k) for k in (count, window))
    off_m = 0.9**window * (g.max(0) - g.min(0))
    off_v = 0.95**window * (g**2).max(0)
    bound = off_m / np.sqrt(v_near) + np.abs(m) * off_v / (np.sqrt(v) + np.sqrt(v_near)) / np.sqrt(v * v_near)
    # some 6 float32 roundings of every term, and one of theta, which is of order 1: below 4
    slack = 1e-5 * (1 + np.abs(change)) + 2**-22
    np.testing.assert_allclose(change, -lr * m / np.sqrt(v), rtol=1e-4, atol=1e-5)
    assert np.all(np.abs(change - found) <= bound + slack)
    if window == 80:  # a bound that says something: 0.02% and 2% are left out of m and v
        assert np.median(bound) < 0.25 * np.median(np.abs(change))


def _mean(g: np.ndarray, beta: float, window: int) -> np.ndarray:
    """The bias-corrected running mean of the last `window` rows."""
    weight = beta ** np.arange(window)
    return (weight[:, None] * g[::-1][:window]).sum(0) / weight.sum()


@pytest.mark.parametrize("window", [3, 20])
def test_momentum_differs_by_rounding_and_by_what_the_window_leaves_out(window: int) -> None:
    count, lr, beta = 20, 1e-2, 0.9
    taken = updates(count, rates=lr)
    far = values(moved(Momentum(beta1=beta), taken)) - values(
        moved(MomentumRebuilt(beta1=beta, history=window), taken)
    )
    # |G| <= max_k |g_k| 4.86 (the largest z). A step leaves out at most beta^K of a mean of G. Rounding: m and
    # theta, of order 4 at most, lose 2^-22 a step and operation, of which there are four a direction and step
    largest = 4.86 * max(abs(d.projected_grad) for u in taken for d in u.directions)
    left_out = 0.0 if window >= count else count * lr * beta**window * largest
    assert np.abs(far).max() <= left_out + count * 4 * 2**-22
    assert (np.abs(far).max() > 1e-4) == (window < count)


def test_sixteen_bit_momentum_rounds_once_a_step() -> None:
    """The sum of the window goes into the weights as one update: with the step's own rounding stream."""
    taken = updates(4)
    by_hand = moved(Momentum(), [], torch.bfloat16)
    for now in range(4):
        past = [(u.step, d) for u in reversed(taken[: now + 1]) for d in u.directions]
        by_hand.update_(
            [d.seed for _, d in past],
            [-1e-2 * (1 - 0.9) * 0.9 ** (now - step) / 2 * d.projected_grad for step, d in past],
            scalings=[d.scaling for _, d in past],
            rounding="matched",  # the optimizers' default
        )
    assert by_hand.checksum() == moved(MomentumRebuilt(), taken, torch.bfloat16).checksum()


def test_a_history_keeps_the_last_updates() -> None:
    history, taken = History(), updates(7)
    for update in taken:
        history = history.after(update, 3)
    assert history == History(7, tuple(taken[-3:]))
