"""A name -> thing table. Adding an estimator, task, ... is one file and one line in its table."""

from collections.abc import Mapping
from typing import TypeVar

from mezo.errors import MezoError, near

T = TypeVar("T")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry called `name`; a MezoError with the near names if it does not exist."""
    if name not in table:
        raise MezoError(f"unknown {what} {name!r}{near(name, table)}")
    return table[name]
