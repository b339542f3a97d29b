"""Which cases of a large table run in the fast tier: a few; `slow` has them all."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], fast: Callable[..., bool]) -> list[Any]:
    """The cases as pytest parameters, `slow` but for those of which `fast` says so."""
    found = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        found.append(pytest.param(*values, marks=() if fast(*values) else pytest.mark.slow))
    return found
