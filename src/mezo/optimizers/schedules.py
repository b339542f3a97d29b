"""Learning-rate schedules: pure functions of the step, so that a trajectory need not store them."""

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {  # progress in [0, 1) -> factor
    "constant": lambda progress: 1.0,  # the paper's
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


def schedule(name: str, step: int, num_steps: int, *, warmup_steps: int = 0) -> float:
    """The factor on the peak learning rate at 0-based `step` of `num_steps`.

    It rises linearly over `warmup_steps`, then follows the named curve towards zero at `num_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return SCHEDULES[name]((step - warmup_steps) / max(1, num_steps - warmup_steps))
