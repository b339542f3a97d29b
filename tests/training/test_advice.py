"""Steps that are too large are called out once, with a learning rate that is not."""

import math
import re

import numpy as np
import pytest

from mezo.events import StepRecord
from mezo.training.monitors.advice import GOOD, TOO_MUCH, WINDOW, StepSize


def record(step: int, loss: float, grad: float, rate: float = 1e-4) -> StepRecord:
    return StepRecord(step, loss, rate, (grad,), 0.1, 10)


def warnings(losses: list[float], grads: list[float], rate: float = 1e-4, slopes: bool = True) -> list[str]:
    watch = StepSize(slopes=slopes)
    found = [watch.seen(record(i, x, g, rate)) for i, (x, g) in enumerate(zip(losses, grads, strict=True))]
    return [text for text in found if text]


def test_a_healthy_run_is_left_alone() -> None:
    losses = [0.7 * math.exp(-i / 500) for i in range(400)]
    assert warnings(losses, [math.sqrt(0.01 * x / 1e-4) for x in losses]) == []


def test_a_slope_that_promises_too_much_is_called_out_once() -> None:
    share = 2 * TOO_MUCH
    grads = [math.sqrt(share * 0.7 / 1e-4)] * 300
    (text,) = warnings([0.7] * 300, grads)
    rate = float(re.search(r"--learning-rate (\S+)", text)[1])  # type: ignore[index]
    # at the rate to try the same slope promises GOOD of the loss, within the rounding to one digit
    assert rate * grads[0] ** 2 / 0.7 == pytest.approx(GOOD, rel=0.5)


def test_a_rising_loss_is_called_out_even_without_slopes() -> None:
    losses = [1.0] * WINDOW + [2.0] * WINDOW
    (text,) = warnings(losses, [0.0] * len(losses), rate=3e-3, slopes=False)
    assert "risen from 1 to" in text
    assert "--learning-rate 0.001" in text


def test_signs_are_not_taken_for_slopes() -> None:
    assert warnings([0.7] * 200, [100.0] * 200, slopes=False) == []


def test_a_rate_that_diverges_is_called_out_before_it_has() -> None:
    """SGD along random directions on 0.5 |theta|^2 in 200 dimensions: stable below lr = 2 / (d + 2)."""
    rng, d = np.random.default_rng(0), 200

    def run(rate: float) -> list[str]:
        theta, watch, texts = rng.standard_normal(d), StepSize(), []
        for step in range(200):
            z = rng.standard_normal(d)
            g = float(theta @ z)
            texts.append(watch.seen(record(step, float(theta @ theta) / 2, g, rate)))
            theta = theta - rate * g * z
        return [text for text in texts if text]

    assert run(0.2 / d) == []
    assert len(run(5 / d)) == 1
