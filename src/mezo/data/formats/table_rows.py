"""Rows of a table that stay in it until they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from mezo.errors import MezoError
from mezo.tasks import Row


class TableRows(Sequence[Row]):
    """The rows of a `datasets.Dataset`, a list of dicts, or whatever else has a length and mappings by index.

    Columns of class labels are read by their names where `names_labels` is set.
    """

    def __init__(self, items: Any, source: str, *, names_labels: bool = False) -> None:
        self.items, self.source = items, source
        features = getattr(items, "features", None)
        self._names: dict[str, Any] = {}
        if isinstance(features, Mapping) and names_labels:
            self._names = {name: f.int2str for name, f in features.items() if hasattr(f, "int2str")}

    def with_label_names(self) -> "TableRows":
        """The same rows, with the names of classes in place of their numbers."""
        return TableRows(self.items, self.source, names_labels=True)

    @property
    def is_lazy(self) -> bool:
        """Whether rows are made when they are asked for, from something that is not in memory as Python objects."""
        return not isinstance(self.items, list | tuple)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self.items[index]
        if not isinstance(item, Mapping):
            raise MezoError(f"{self.source}[{index}]: expected a dict of fields, found {type(item).__name__}")
        if self._names:
            item = {
                **item,
                **{
                    k: f(item[k]) for k, f in self._names.items() if isinstance(item[k], int) and item[k] >= 0
                },
            }
        return Row(item, self.source, index)
