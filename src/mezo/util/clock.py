"""How long something took, by a clock that may jump.

A virtual machine that is suspended, or a container that is moved, may see the monotonic clock stand still or jump. No
result depends on a time; but none may be negative, and none may be divided by.
"""

import time

from mezo.errors import MezoError


def since(began: float) -> float:
    """Seconds since `began`, by time.monotonic(); 0 if the clock has gone back."""
    return max(0.0, time.monotonic() - began)


def due(now: float, last: float, every: float) -> bool:
    """Whether `every` seconds have passed since `last`, or the clock has gone back, so that nobody knows."""
    return not 0 <= now - last < every


def measured(seconds: float, what: str) -> float:
    """A time to plan by. Raises MezoError for one that is invalid, as a clock that stood still or went back gives it."""
    if not seconds > 0:
        raise MezoError(
            f"{what} took {seconds:g} seconds by this machine's clock, which was set or stood still meanwhile; try again"
        )
    return seconds
