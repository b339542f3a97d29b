"""JSON: one list of objects, or an object with the list under "data" (SQuAD) or with nothing but objects in it (DROP)."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mezo.data.formats.json_values import decoded, kind_of_value, object_of, parsed
from mezo.errors import MezoError
from mezo.tasks import Row
from mezo.util.foreign import read_at_most

LARGEST_JSON = 512 << 20  # bytes of a file, which is parsed as one value: SQuAD's training split has 30 MB


def read_json_list(path: Path, file: BinaryIO) -> Iterator[Row]:
    """The rows of a .json file in UTF-8.

    Raises: MezoError if the file is too large, is not UTF-8, or is not a list of JSON objects.
    Example:
        >>> from io import BytesIO
        >>> [row.fields for row in read_json_list(Path("a.json"), BytesIO(b'[{"a": 1}]'))]
        [{'a': 1}]
    """
    content = _whole(path, file)
    values = parsed(decoded(content, str(path), first=True), str(path))
    if isinstance(values, dict):
        inside = values.get("data", list(values.values()))
        values = inside if isinstance(inside, list) and all(isinstance(v, dict) for v in inside) else values
    if not isinstance(values, list):
        raise MezoError(
            f"{path}: expected a list of JSON objects, found {kind_of_value(values)}; one object a line is .jsonl"
        )
    for number, value in enumerate(values):
        yield Row(object_of(value, f"{path}[{number}]"), str(path), number)


def _whole(path: Path, file: BinaryIO) -> bytes:
    content = read_at_most(file, LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise MezoError(
            f"{path}: expected at most {LARGEST_JSON:,} bytes of JSON, found more; with one object a line (.jsonl) a "
            "file may have any size"
        )
    return content
