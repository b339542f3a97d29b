"""The readers: whole files come back as written, and broken ones are named to the line."""

import contextlib
import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mezo.data import files as files_of
from mezo.data.files import read_rows
from mezo.data.formats import json_lines, json_list
from mezo.errors import MezoError

ONE = '{"prompt": "a"}'


@contextlib.contextmanager
def peak_below(most: int) -> Iterator[None]:
    """Python holds at most so many bytes more at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


# function-scoped tmp_path is written anew by every example
files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts, st.lists, max_leaves=5
)
objects = st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=5)


@files
@given(
    rows=objects, ascii_only=st.booleans(), bom=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n \n"])
)
def test_json_lines_round_trip(tmp_path: Path, rows: list, ascii_only: bool, bom: bool, end: str) -> None:
    path = tmp_path / "rows.jsonl"
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    read = read_rows(path)
    assert [row.fields for row in read] == rows
    lines = path.read_bytes().split(b"\n")
    assert all(json.loads(lines[row.number - 1].decode("utf-8-sig")) == row.fields for row in read)


@files
@given(rows=objects)
def test_every_spelling_of_a_file_reads_the_same(tmp_path: Path, rows: list) -> None:
    lines = "\n".join(map(json.dumps, rows)).encode()
    whole = json.dumps(rows, indent=1).encode()
    contents = {
        "rows.jsonl": lines,
        "rows.jsonl.gz": gzip.compress(lines, mtime=0),
        "rows.json": whole,
        "rows.json.gz": gzip.compress(whole, mtime=0),
        "rows.jsonl.json": whole,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert [row.fields for row in read_rows(tmp_path / name)] == rows


@pytest.mark.parametrize(
    "whole", [{"version": "1.1", "data": [{"a": 1}, {"a": 2}]}, {"x": {"a": 1}, "y": {"a": 2}}]
)
def test_official_files_are_objects_of_objects(tmp_path: Path, whole: dict[str, object]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole))
    assert [row.fields for row in read_rows(path)] == [{"a": 1}, {"a": 2}]


@files
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".jsonl", ".json", ".jsonl.gz", ".json.gz"]))
def test_any_bytes_are_rows_or_one_line_of_complaint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    rows, message = [], ""
    try:
        rows = read_rows(path)
    except MezoError as error:
        message = str(error)
    assert bool(rows) != message.startswith(str(path))
    assert "\n" not in message
    assert all(isinstance(row.fields, dict) for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f"{ONE}\n\n{{broken\n", r"a\.jsonl:3: .*broken JSON: .* \(column 2\)"),
        ("a.jsonl", f"{ONE}\n{ONE} {ONE}\n", r"a\.jsonl:2: .*broken JSON: extra data \(column 17\)"),
        ("a.jsonl", f"{ONE}\n[1]\n", r"a\.jsonl:2: expected a JSON object .*, found a list"),
        ("a.jsonl", f"{ONE}\n\ufeff{ONE}", r"a\.jsonl:2: .*broken JSON: unexpected UTF-8 BOM"),
        ("a.jsonl", f"{ONE}\r{ONE}\r", r"a\.jsonl:1: .*line feed, found bare carriage returns"),
        (
            "a.jsonl",
            f'{ONE}\n{{"a": 1, "b": {{}}, "a": 2}}',
            r"a\.jsonl:2: expected each key once .*, found 'a' twice",
        ),
        (
            "a.json",
            '[{"b": {"c": 1, "c": 1}}]',
            r"a\.json: expected each key once in an object, found 'c' twice",
        ),
        ("a.jsonl", "null\n", r"a\.jsonl:1: expected a JSON object .*, found null"),
        ("a.jsonl", "", r"a\.jsonl: expected at least one example, found none"),
        ("a.jsonl", "\n \n", r"a\.jsonl: expected at least one example, found none"),
        ("a.json", "[]", r"a\.json: expected at least one example, found none"),
        ("a.json", ONE, r"a\.json: expected a list of JSON objects, found an object"),
        ("a.json", f"[{ONE},\n 5]", r"a\.json\[1\]: expected a JSON object .*, found a number"),
        ("a.json", f"[{ONE},\n", r"a\.json: .*broken JSON: .* \(line 2 column 1\)"),
        ("a.jsonl", "9" * 5000, r"a\.jsonl:1: expected a JSON value of ordinary size"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: expected a JSON value of ordinary size"),
        ("a.md", ONE, r"a\.md: expected a file name ending in \.jsonl, "),
    ],
)
def test_broken_files_are_named_to_the_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(MezoError, match=message) as caught:
        read_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_encodings_are_named_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{ONE}\n{{"prompt": "Müller"}}'.encode("latin-1"))
    with pytest.raises(MezoError, match=r"a\.jsonl:2: expected UTF-8, found byte 0xfc at position 13"):
        read_rows(path)
    path.write_bytes(ONE.encode("utf-16"))
    with pytest.raises(MezoError, match=r"a\.jsonl:1: expected UTF-8, found byte 0xff at position 0"):
        read_rows(path)


GZIPPED = gzip.compress(ONE.encode(), mtime=0)


@pytest.mark.parametrize("content", [ONE.encode(), GZIPPED[:-4], GZIPPED[:10] + b"\xff" * 20, b""])
def test_what_is_not_whole_gzip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(MezoError, match=r"a\.jsonl\.gz: expected "):
        read_rows(path)


@pytest.mark.parametrize("end", [".jsonl.gz", ".json.gz"])
def test_gzip_that_comes_to_far_more_than_data_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(files_of, "ALWAYS", 1 << 20)
    path = tmp_path / f"a{end}"
    path.write_bytes(gzip.compress(b"[" + b"\n" * (64 << 20), mtime=0))
    with (
        peak_below(8 << 20),
        pytest.raises(MezoError, match=r"bytes of gzip to come to 3,\d{3},\d{3} at most, found more"),
    ):
        read_rows(path)


@pytest.mark.parametrize("end", [".jsonl.gz", ".json.gz"])
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, end: str) -> None:
    """1 MB that would come to 400 MiB: no more is unpacked than may be, and none of it kept."""
    path = tmp_path / f"a{end}"
    path.write_bytes(gzip.compress(b" " * (1 << 20), mtime=0) * 400)
    with peak_below(8 << 20), pytest.raises(MezoError, match=r"to come to 67,108,864 at most, found more"):
        read_rows(path)


def test_memory_follows_the_rows_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(
        gzip.compress(b" " * (1 << 20) + b"\n", mtime=0) * 60 + gzip.compress(ONE.encode(), mtime=0)
    )
    with peak_below(8 << 20):  # of 60 MiB: one line as bytes, as text and stripped, and a chunk
        (row,) = read_rows(path)
    assert (row.fields, row.number) == ({"prompt": "a"}, 61)


@pytest.mark.parametrize("end", [".jsonl", ".jsonl.gz"])
def test_a_line_longer_than_any_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(json_lines, "LONGEST_LINE", len(ONE) + 1)
    path = tmp_path / f"a{end}"
    pack = gzip.compress if end.endswith(".gz") else bytes
    path.write_bytes(pack(f"{ONE}\n{ONE}\n".encode()))
    assert len(read_rows(path)) == 2
    path.write_bytes(pack(f"{ONE}\n{ONE} \n".encode()))
    with pytest.raises(MezoError, match=rf"{end}:2: expected a line of at most 16 bytes, found a longer one"):
        read_rows(path)


@pytest.mark.parametrize("end", [".json", ".json.gz"])
def test_more_json_than_one_value_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(json_list, "LARGEST_JSON", len(ONE) + 2)
    path = tmp_path / f"a{end}"
    pack = gzip.compress if end.endswith(".gz") else bytes
    path.write_bytes(pack(f"[{ONE}]".encode()))
    assert len(read_rows(path)) == 1
    path.write_bytes(pack(f"[{ONE}] ".encode()))
    with pytest.raises(MezoError, match=rf"{end}: expected at most 17 bytes of JSON, found more; .*\.jsonl"):
        read_rows(path)


def test_a_file_of_holes_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    os.truncate(path, 1 << 40)
    # a line of the most bytes, while it grows and once more as a whole
    with (
        peak_below(4 * json_lines.LONGEST_LINE),
        pytest.raises(MezoError, match=r":1: expected a line of at most"),
    ):
        read_rows(path)


def test_a_torn_archive_is_that_before_any_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(f"{ONE}\n{{broken\n".encode(), mtime=0)[:-4])
    with pytest.raises(MezoError, match="expected a whole gzip file"):
        read_rows(path)


def test_gzip_may_come_to_what_data_comes_to(tmp_path: Path) -> None:
    """Alike lines, which shrink more than any data: a small file of them is read, and so is its limit."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(f"{ONE}\n".encode() * 100_000, mtime=0))
    assert path.stat().st_size * files_of.EXPANSION < 100_000 * len(ONE)
    assert len(read_rows(path)) == 100_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a pipe", os.mkfifo),
        ("a folder", os.mkdir),
        ("a device", lambda path: os.symlink("/dev/zero", path)),
    ],
)
def test_what_may_never_end_is_not_read(tmp_path: Path, name: str, kind: str, make: Any) -> None:
    make(tmp_path / name)
    with pytest.raises(MezoError, match=rf"{name}: expected a file, found {kind}"):
        read_rows(tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=r"none\.jsonl: cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl")
