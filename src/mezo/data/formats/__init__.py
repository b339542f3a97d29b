"""Formats of data files by their suffix. A new one is one file and one line here; each may be gzipped, too."""

from collections.abc import Callable, Iterable

from mezo.data.formats.json_lines import read_json_lines
from mezo.data.formats.json_list import read_json_list
from mezo.data.formats.tables import read_arrow, read_csv, read_parquet, read_tsv
from mezo.data.formats.text_lines import read_text_lines
from mezo.tasks import Row

# Each is called with the file's path and its bytes, unpacked; it gives the rows.
FORMATS: dict[str, Callable[..., Iterable[Row]]] = {
    ".jsonl": read_json_lines,
    ".json": read_json_list,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": read_text_lines,
}
