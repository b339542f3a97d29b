"""The trajectory file: what is written comes back; what is torn is dropped; what is wrong is named."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezo.errors import MezoError
from mezo.runs.trajectory import BLOCK_RECORDS, TrajectoryWriter, journal_of, read

finite = st.floats(width=32, allow_nan=False)


def write(path: Path, records: np.ndarray, *, close: bool = True) -> None:
    writer = TrajectoryWriter(path, {"config": {"seed": 1}}, records.shape[1])
    for record in records:
        writer.append(record.tolist())
    if close:
        writer.close()
    else:  # as a killed process leaves it
        writer._file.close()
        writer._journal.close()


def drawn(steps: int, n: int = 1) -> np.ndarray:
    return np.random.RandomState(steps).standard_normal((steps, n)).astype(np.float32)


@settings(max_examples=40)
@given(st.data())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("t") / "trajectory.mezo"
    n = data.draw(st.integers(1, 5))
    rows = data.draw(st.lists(st.lists(finite, min_size=n, max_size=n), max_size=150))
    records = np.array(rows, dtype=np.float32).reshape(-1, n)
    close = data.draw(st.booleans())
    write(path, records, close=close)
    found = read(path)
    assert np.array_equal(found.records.view(np.uint32), records.view(np.uint32))
    assert found.header["config"] == {"seed": 1}
    assert found.dropped_bytes == 0
    assert journal_of(path).exists() != close


def test_twenty_thousand_steps_are_under_a_tenth_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    write(path, drawn(20_000))
    assert path.stat().st_size < 83_000


@pytest.mark.parametrize("steps", [5, BLOCK_RECORDS, BLOCK_RECORDS + 7, 3 * BLOCK_RECORDS])
def test_a_file_cut_anywhere_loses_only_what_is_not_whole(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "t.mezo"
    records = drawn(steps, 2)
    write(path, records)
    whole = path.read_bytes()
    header_end = 12 + struct.unpack_from("<I", whole, 8)[0] + 4
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size < header_end:
            with pytest.raises(MezoError):
                read(path)
            continue
        found = read(path)
        assert len(found) == (size - header_end) // (2 + BLOCK_RECORDS * 8 + 4) * BLOCK_RECORDS
        assert np.array_equal(found.records, records[: len(found)])


def test_a_journal_cut_anywhere_loses_at_most_the_torn_record(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    records = drawn(BLOCK_RECORDS + 9)
    write(path, records, close=False)
    whole = journal_of(path).read_bytes()
    line = len(whole) // 9
    for size in range(len(whole) + 1):
        journal_of(path).write_bytes(whole[:size])
        found = read(path)
        assert len(found) == BLOCK_RECORDS + size // line
        assert np.array_equal(found.records, records[: len(found)])
        assert found.dropped_bytes == size % line


def test_a_crash_between_block_and_journal_counts_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    records = drawn(BLOCK_RECORDS)
    write(path, records[:-1], close=False)
    journal = journal_of(path).read_bytes()
    path.unlink()
    write(path, records, close=True)
    journal_of(path).write_bytes(journal)  # the block is written, the journal not yet emptied
    assert np.array_equal(read(path).records, records)


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flip.mezo"
    path.unlink(missing_ok=True)
    records = drawn(BLOCK_RECORDS + 20)
    write(path, records)
    raw = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(raw))
    try:
        found = read(path)
    except MezoError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.array_equal(found.records, records[: len(found)])  # a length field: reads as torn


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_trajectory_or_a_clean_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mezo"
    for content in (raw, b"MEZOTRJ1" + raw):
        path.write_bytes(content)
        with pytest.raises(MezoError):
            read(path)


def test_damage_names_the_record(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    write(path, drawn(3 * BLOCK_RECORDS))
    raw = bytearray(path.read_bytes())
    raw[-(2 * BLOCK_RECORDS * 4)] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(MezoError, match=r"from step 64 on .* steps 0 to 63 are sound"):
        read(path)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    write(path, drawn(3))
    with pytest.raises(MezoError, match="exists already"):
        TrajectoryWriter(path, {}, 1)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.mezo"
    TrajectoryWriter(path, {"format": 99}, 1).close()
    with pytest.raises(MezoError, match="expected trajectory format 1, found 99"):
        read(path)
