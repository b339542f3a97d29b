"""Which rounding an update gets, and with which numbers: the same choice on every device."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch

from mezo.errors import MezoError
from mezo.noise import spec
from mezo.noise.matched import Matched, matched
from mezo.util.registry import look_up

NEAREST: Final = 0
STOCHASTIC: Final = 1
MATCHED: Final = 2

_ROUNDING = {"nearest": NEAREST, "stochastic": STOCHASTIC, "matched": MATCHED}
_FORM = {torch.bfloat16: spec.BFLOAT16, torch.float16: spec.FLOAT16}
_UNUSED = Matched(0, 0.0, 0.0, 0.0, 0.0)


class Mode(NamedTuple):
    """How a kernel rounds; `levels` counts if `number` is MATCHED."""

    number: int
    levels: Matched = _UNUSED


def of_update(
    dtype: torch.dtype, rounding: str, kind: str, seeds: Sequence[int], coefficients: Sequence[float]
) -> Mode:
    """float32 is stored as it is; matched rounding without Gaussian noise is stochastic."""
    number = look_up(_ROUNDING, rounding, "rounding")
    if dtype not in _FORM:
        return Mode(NEAREST)
    if number != MATCHED:
        return Mode(number)
    levels = matched(seeds, coefficients, _FORM[dtype]) if kind == "gaussian" else None
    return Mode(STOCHASTIC) if levels is None else Mode(MATCHED, levels)


def of_values(dtype: torch.dtype, rounding: str) -> Mode:
    """For values that are given, not made. Raises MezoError for matched rounding."""
    number = look_up(_ROUNDING, rounding, "rounding")
    if number == MATCHED:
        raise MezoError(
            "rounding 'matched' needs to know an update, found only the values that it led to; "
            "use 'stochastic' or 'nearest' to store values"
        )
    return Mode(number if dtype in _FORM else NEAREST)
