"""results.jsonl: whole lines or none, whatever a crash leaves."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezo.ablation.run import journal as results
from mezo.errors import MezoError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
RECORDS = st.dictionaries(
    st.text(),
    st.recursive(SCALARS | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5),
)


@settings(max_examples=25)  # each waits for the disk
@given(st.lists(RECORDS, max_size=5))
def test_what_is_appended_is_read(records: list[dict]) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "results.jsonl"
        for record in records:
            results.append(path, record)
        assert results.read(path) == records


@settings(max_examples=25)  # each waits for the disk
@given(st.lists(RECORDS, min_size=1, max_size=4), RECORDS, st.data())
def test_a_torn_line_is_dropped_and_cut_off(records: list[dict], more: dict, data: st.DataObject) -> None:
    """Cut anywhere: the whole lines before the cut are read, and what comes next stands on its own line."""
    with TemporaryDirectory() as name:
        path = Path(name) / "results.jsonl"
        for record in records:
            results.append(path, record)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = records[: whole[:cut].count(b"\n")]
        assert results.read(path) == kept
        results.append(path, more)
        assert results.read(path) == [*kept, more]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    results.append(path, {"b": 2})
    assert results.read(path) == [{"a": 1}, {"b": 2}]


def test_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, {"loss": float("nan")})
    assert path.read_text() == '{"loss": null}\n'


def test_without_a_file_there_are_no_results(tmp_path: Path) -> None:
    assert results.read(tmp_path / "results.jsonl") == []


@pytest.mark.parametrize("line", ["{", "[1]", "", "null"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"b": 2}}\n')
    with pytest.raises(MezoError, match=r"results\.jsonl:2: expected a JSON object"):
        results.read(path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="cannot add a result"):
        results.append(tmp_path / "none" / "results.jsonl", {})
