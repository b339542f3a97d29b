"""MeZO (Malladi et al. 2023, arXiv:2305.17333), Algorithm 1, on one screen."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Protocol

from mezo.errors import MezoError
from mezo.estimators import Estimator
from mezo.estimators.base import losses_of
from mezo.noise import derive_seed
from mezo.types import Draw, Probe, Update
from mezo.util.profiling import span


class Steppable(Protocol):
    """What a step asks of an engine. A batch is examples; of `mezo.MeZO`, a closure."""

    def losses_each(self, batches: Sequence[Any], probes: Sequence[Probe]) -> list[list[float]]:
        """The loss of every batch at each probe."""
        ...

    def apply(self, update: Update) -> None:
        """Move theta."""
        ...


def mezo_step(
    engine: Steppable,
    estimator: Estimator,
    batches: Sequence[Any],
    draw: Draw,
    learning_rate: float,
    state: Any = None,
) -> tuple[Update, list[float], Any]:
    """One step: the update that was applied, the losses of its probes, and the estimator's next state.

    batches: microbatches, all evaluated at the same probes; their losses are averaged.
    Raises NonFiniteLoss, before anything is written, if a loss or a slope is not finite.
    """

    # -----------------------------------------------------------------------------------------------
    def loss_at(probes: Sequence[Probe]) -> list[float]:
        return [fmean(same) for same in zip(*engine.losses_each(batches, probes), strict=True)]

    losses = losses_of(estimator, draw, state, loss_at)  #      l+, l- at theta + eps z, theta - eps z
    grads, state = estimator.tell(draw, losses, state)  #       g = (l+ - l-) / (2 eps)
    check_finite(draw.step, losses, grads)
    update = update_of(estimator, draw, learning_rate, grads)
    with span("update"):
        engine.apply(update)  #                                 theta <- theta - lr * mean_k g_k z_k
    # -----------------------------------------------------------------------------------------------
    return update, losses, state


def draw_of(run_seed: int, step: int, n: int) -> Draw:
    """The n seeds of a step, each a function of (run seed, step, number)."""
    return Draw(step, tuple(derive_seed(run_seed, step, k) for k in range(n)), run_seed)


def update_of(estimator: Estimator, draw: Draw, learning_rate: float, grads: Sequence[float]) -> Update:
    """A step's update from its projected gradients: in the run, and again from its record in a replay."""
    directions = estimator.directions(draw, grads)
    beta = estimator.heading_beta(draw.step)
    rate = estimator.learning_rate(learning_rate, grads)
    return Update(draw.step, rate, directions, len(draw.seeds), tuple(grads), beta)


class NonFiniteLoss(MezoError):
    """A loss or a projected gradient was NaN or infinite; theta was not touched."""

    of_all_ranks = True


def check_finite(step: int, losses: Sequence[float], slopes: Sequence[float]) -> None:
    """Raises NonFiniteLoss if any loss or projected gradient is NaN or infinite."""
    if all(map(math.isfinite, losses)) and not all(map(math.isfinite, slopes)):
        raise NonFiniteLoss(
            f"step {step}: the slope overflows float32 (losses {', '.join(f'{x:g}' for x in losses)}, which are finite, over "
            f"epsilon); the weights are those of the last good step. Scale the loss down, or raise epsilon"
        )
    if not all(map(math.isfinite, losses)):
        raise NonFiniteLoss(
            f"step {step}: the loss is not finite (losses {', '.join(f'{x:g}' for x in losses)}); the weights "
            f"are those of the last good step. Lower the learning rate or epsilon, or use --dtype float32"
        )
