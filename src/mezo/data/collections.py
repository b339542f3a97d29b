"""Objects that hold data in a Python program: lists, `datasets`, pandas and polars frames."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mezo.data.formats.table_rows import TableRows
from mezo.errors import MezoError


def rows_of(items: Any, source: str, most: int | None = None) -> TableRows:
    """The rows of a sequence of mappings, a data set, or a frame. Raises MezoError for anything else, and for none.

    most: rows to take from a stream, which has no length.
    """
    if _is(items, "polars", "LazyFrame"):
        items = items.collect()
    if _is(items, "pandas", "DataFrame") or _is(items, "polars", "DataFrame"):
        items = _Frame(items)
    elif _is(items, "datasets", "IterableDataset"):
        items = _taken(items, source, most)
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__") or isinstance(items, str | bytes):
        raise MezoError(
            f"expected data as a file, a folder, a list of dicts, a data set or a frame, found {type(items).__name__}"
        )
    rows = TableRows(items, source)
    if not len(rows):
        raise MezoError(f"{source}: expected at least one example, found none")
    if not rows.is_lazy:
        for number in range(len(rows)):
            rows[number]  # each is a mapping
    return rows


def _taken(stream: Any, source: str, most: int | None) -> list[Any]:
    if most is None:
        raise MezoError(
            f"{source}: a stream has no length, so its rows cannot be drawn from: say how many of its first ones to take "
            "(train_examples, or max_examples of MeZODataset)"
        )
    return list(islice(stream, most))


class _Frame(Sequence[Mapping[str, Any]]):
    """The rows of a pandas or polars frame as mappings; a missing value is None."""

    def __init__(self, frame: Any) -> None:
        self._frame, self._columns = frame, [str(name) for name in frame.columns]

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if hasattr(self._frame, "row"):
            return self._frame.row(index, named=True)
        values = [self._frame.iloc[:, n].iloc[index] for n in range(len(self._columns))]
        # nan is what pandas has for nothing; it alone differs from itself
        kept = (None if isinstance(v, float) and v != v else v for v in values)
        return dict(zip(self._columns, kept, strict=True))


def _is(items: Any, package: str, name: str) -> bool:
    """Whether it is an object of that class, without importing the package."""
    kinds = type(items).__mro__
    return any(kind.__module__.partition(".")[0] == package and kind.__name__ == name for kind in kinds)
