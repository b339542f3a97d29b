"""Which runs were evaluated on the same examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.runs.judged_on import Judged, judged_elsewhere, rows_fingerprint

ROWS = [{"text": "good", "label": 1, "note": None}, {"text": "bad", "label": 0}]


def test_the_fingerprint_is_of_the_rows_and_not_of_their_order_or_file() -> None:
    known = rows_fingerprint(ROWS)
    assert known is not None
    assert rows_fingerprint(reversed(ROWS)) == known
    assert (
        rows_fingerprint([{"label": "1", "text": "good", "note": ""}, {"label": "0", "text": "bad"}]) == known
    )
    assert rows_fingerprint([*ROWS, ROWS[0]]) != known
    assert rows_fingerprint([ROWS[0], {"text": "bad", "label": 1}]) != known
    assert rows_fingerprint([ROWS[0], None]) is None
    assert rows_fingerprint([]) is None
    arrays = [{"text": "good", "values": np.arange(n)} for n in (2000, 2001)]
    assert rows_fingerprint(arrays[:1]) != rows_fingerprint(arrays[1:])


@given(
    st.lists(
        st.dictionaries(st.text(), st.none() | st.text() | st.floats() | st.lists(st.text())), min_size=1
    )
)
def test_any_rows_have_one(rows: list[dict[str, object]]) -> None:
    assert rows_fingerprint(rows) == rows_fingerprint(rows[::-1])


@pytest.mark.parametrize(
    ("runs", "others"),
    [
        ({}, ""),
        ({"a": Judged()}, ""),
        ({"a": Judged(10, "x"), "b": Judged(10, "x")}, ""),
        ({"a": Judged(10, "x"), "b": Judged(10, "y")}, "b"),
        ({"a": Judged(10, "x"), "b": Judged(10, "y"), "c": Judged(10, "y")}, "a"),
        ({"a": Judged(10), "b": Judged(10, "y"), "c": Judged(20)}, "c"),  # older runs say the number alone
        ({"a": Judged(10), "b": Judged(20), "c": Judged(20)}, "a"),
        ({"a": Judged(), "b": Judged(20)}, ""),
    ],
)
def test_the_minority_is_named(runs: dict[str, Judged], others: str) -> None:
    assert judged_elsewhere(runs) == set(others)
