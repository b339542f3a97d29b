"""MeZO (Malladi et al. 2023, arXiv:2305.17333), Algorithm 1, on one screen."""

import math
from collections.abc import Sequence

from mezo.engines.base import Engine
from mezo.errors import MezoError
from mezo.estimators import Estimator
from mezo.noise import derive_seed
from mezo.profiling import span
from mezo.scoring import Example
from mezo.types import Update


def mezo_step(
    engine: Engine,
    estimator: Estimator,
    batch: Sequence[Example],
    *,
    step: int,
    run_seed: int,
    num_directions: int,
    learning_rate: float,
) -> tuple[Update, list[float]]:
    """One step: the update that was applied, and the losses of its probes.

    Raises NonFiniteLoss, before anything is written, if a loss or a slope is not finite.
    """
    seeds = [derive_seed(run_seed, step, k) for k in range(num_directions)]
    # -------------------------------------------------------------------------------------------
    probes = estimator.ask(seeds)  #                   theta + eps z,  theta - eps z
    losses = engine.losses(batch, probes)  #           l+, l-
    directions = estimator.tell(probes, losses)  #     g = (l+ - l-) / (2 eps)
    check_finite(step, losses, [d.projected_grad for d in directions])
    update = Update(step, learning_rate, directions)
    with span("update"):
        engine.apply(update)  #                        theta <- theta - lr * mean_k g_k z_k
    # -------------------------------------------------------------------------------------------
    return update, losses


class NonFiniteLoss(MezoError):
    """A loss or a projected gradient was NaN or infinite; theta was not touched."""


def check_finite(step: int, losses: Sequence[float], slopes: Sequence[float]) -> None:
    """Raises NonFiniteLoss if any loss or projected gradient is NaN or infinite."""
    if not all(map(math.isfinite, (*losses, *slopes))):
        raise NonFiniteLoss(
            f"step {step}: the loss is not finite (losses {', '.join(f'{x:g}' for x in losses)}); the weights "
            f"are those of the last good step. Lower the learning rate or epsilon, or use --dtype float32"
        )
