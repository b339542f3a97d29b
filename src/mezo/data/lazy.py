"""Rows and examples of large tables, made when they are asked for."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar, overload

from mezo.scoring import Example
from mezo.tasks import Row

LAZY_FROM = 50_000  # rows; below, all are read and tokenised before the first step, so that a broken one is named then
_HELD = 4096  # examples that are kept after they were asked for

T = TypeVar("T")


class _Made(Sequence[T], Generic[T]):
    """A sequence whose elements are made by index."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._make(index % self._count)


class MappedRows(_Made[Row]):
    """Rows through a function, which is called when a row is asked for."""

    def __init__(
        self, rows: Sequence[Row], function: Callable[[Row], Row], chosen: Sequence[int] | None = None
    ) -> None:
        places = range(len(rows)) if chosen is None else chosen
        self._rows, self._function, self._places = rows, function, places
        super().__init__(len(places), lambda index: function(rows[places[index]]))

    def only(self, chosen: Sequence[int]) -> "MappedRows":
        """The rows at these places, in this order."""
        return MappedRows(self._rows, self._function, [self._places[i] for i in chosen])


class LazyExamples(_Made[Example]):
    """Examples that are tokenised when they are asked for."""

    def __init__(
        self, rows: MappedRows, encode: Callable[[Row], Example], *checks: Callable[[Example, str], Any]
    ) -> None:
        self._rows, self._encode, self._checks = rows, encode, checks

        def make(index: int) -> Example:
            row = rows[index]
            example = encode(row)
            for check in checks:
                check(example, row.where)
            return example

        super().__init__(len(rows), lru_cache(_HELD)(make))

    def checked(self, check: Callable[[Example, str], Any]) -> "LazyExamples":
        """The same examples, each also held against `check` with its place when it is made."""
        return LazyExamples(self._rows, self._encode, *self._checks, check)
