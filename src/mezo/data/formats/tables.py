"""Tables: CSV, TSV, Parquet and Arrow, read by the `datasets` library, which maps them from disk."""

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mezo.data.formats.json_values import decoded
from mezo.data.formats.table_rows import TableRows
from mezo.errors import MezoError
from mezo.tasks import Row

INSTALL = "pip install 'mezo-llm[hub]'"
_LONGEST_HEADER = 1 << 20  # bytes


def read_csv(path: Path, file: BinaryIO) -> Sequence[Row]:
    """The rows of a .csv file, whose first line names the columns. Every value is text, as it is written.

    Raises: MezoError without the package `datasets`, or if a line has more values than there are columns.
    Example:
        >>> from mezo.data.files import read_rows
        >>> path = Path("a.csv")
        >>> _ = path.write_text("prompt,completion\\nwhat?,007\\n")
        >>> [row.fields for row in read_rows(path)]
        [{'prompt': 'what?', 'completion': '007'}]
    """
    return _delimited(path, file, ",")


def read_tsv(path: Path, file: BinaryIO) -> Sequence[Row]:
    """The rows of a .tsv file: as `read_csv`, with tabs.

    Raises: MezoError without the package `datasets`, or if a line has more values than there are columns.
    Example:
        >>> from mezo.data.files import read_rows
        >>> path = Path("a.tsv")
        >>> _ = path.write_text("prompt\\tcompletion\\nwhat?\\t007\\n")
        >>> [row.fields for row in read_rows(path)]
        [{'prompt': 'what?', 'completion': '007'}]
    """
    return _delimited(path, file, "\t")


def read_parquet(path: Path, file: BinaryIO) -> Sequence[Row]:
    """The rows of a .parquet file, which stay in it until they are asked for.

    Raises: MezoError without the package `datasets`, or if it is not a Parquet file.
    Example:
        >>> from mezo.data.files import read_rows
        >>> _ = library("this").Dataset.from_dict({"a": [1]}).to_parquet("a.parquet")
        >>> [row.fields for row in read_rows(Path("a.parquet"))]
        [{'a': 1}]
    """
    return _table(path, lambda datasets: datasets.Dataset.from_parquet(str(path)))


def read_arrow(path: Path, file: BinaryIO) -> Sequence[Row]:
    """The rows of an .arrow file as `datasets` writes it, which stay in it until they are asked for.

    Raises: MezoError without the package `datasets`, or if it is not an Arrow stream.
    Example:
        >>> from mezo.data.files import read_rows
        >>> library("this").Dataset.from_dict({"a": [1]}).save_to_disk("saved")
        >>> path = Path("saved/data-00000-of-00001.arrow")
        >>> [row.fields for row in read_rows(path)]
        [{'a': 1}]
    """
    return _table(path, lambda datasets: datasets.Dataset.from_file(str(path)))


def _delimited(path: Path, file: BinaryIO, separator: str) -> Sequence[Row]:
    columns = _header(path, file, separator)

    def read(datasets: Any) -> Any:
        # no guessing of types: "007", "NA" and "1.0" are what somebody wrote
        text = datasets.Features({name: datasets.Value("string") for name in columns})
        reading = {"sep": separator, "features": text, "na_filter": False, "encoding": "utf-8-sig"}
        return datasets.Dataset.from_csv(str(path), **reading)

    return _table(path, read)


def _header(path: Path, file: BinaryIO, separator: str) -> list[str]:
    """The names of the columns, from the first line."""
    first = decoded(file.readline(_LONGEST_HEADER), str(path), first=True)
    columns = next(csv.reader([first], delimiter=separator), [])
    if not any(name.strip() for name in columns):
        raise MezoError(f"{path}: expected the names of the columns in the first line, found an empty one")
    if len(set(columns)) < len(columns):
        twice = next(name for n, name in enumerate(columns) if name in columns[:n])
        raise MezoError(f"{path}: expected each column once, found {twice!r:.60} twice: rename one")
    return columns


def _table(path: Path, read: Callable[[Any], Any]) -> Sequence[Row]:
    datasets = library(f"{path}: reading it")
    try:
        with quiet(datasets):
            return TableRows(read(datasets), str(path))
    except MezoError:
        raise
    except Exception as error:  # whatever the reader of the format raises
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            return []
        raise MezoError(f"{path}: not a readable table: {' '.join(str(cause).split())[:300]}") from None


def library(what: str) -> Any:
    """The module `datasets`. Raises MezoError, which says how to install it."""
    try:
        import datasets  # heavy, and only needed for tables and the hub

        return datasets
    except ImportError:
        raise MezoError(f"{what} needs the package 'datasets': {INSTALL}") from None


@contextlib.contextmanager
def quiet(datasets: Any) -> Iterator[None]:
    """No progress bars and no log of the library's own."""
    shown, verbosity = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()
