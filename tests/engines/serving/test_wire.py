"""Messages come out as they went in, and nothing else is taken for one."""

import io
import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezo.engines.serving.wire import receive, send
from mezo.errors import MezoError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@given(VALUES, st.lists(st.tuples(st.text(max_size=8), DTYPES, SHAPES), max_size=3, unique_by=lambda t: t[0]))
def test_a_message_comes_out_as_it_went_in(
    value: object, tensors: list[tuple[str, torch.dtype, list[int]]]
) -> None:
    sent = {
        name: torch.arange(int(torch.tensor(shape).prod())).to(dtype).view(shape)
        for name, dtype, shape in tensors
    }
    pipe = io.BytesIO()
    send(pipe, value, sent)
    send(pipe, "next")
    pipe.seek(0)
    got, received = receive(pipe)
    assert got == value
    assert list(received) == list(sent)
    for name, tensor in sent.items():
        assert received[name].dtype == tensor.dtype
        assert received[name].equal(tensor)
    assert receive(pipe) == ("next", {})


@given(st.binary(max_size=40))
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises((EOFError, MezoError)):
        receive(io.BytesIO(raw))


@pytest.mark.parametrize(
    "header",
    [[], {"value": 1}, {"value": 1, "tensors": [["a", "int8", [1]]]}, {"value": 1, "tensors": [["a"]]}],
)
def test_a_header_of_another_kind_is_refused(header: object) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(MezoError, match="no message of an engine"):
        receive(io.BytesIO(struct.pack("<Q", len(text)) + text))


def test_a_message_that_breaks_off_is_the_end_of_the_pipe() -> None:
    pipe = io.BytesIO()
    send(pipe, 1, {"a": torch.ones(5)})
    with pytest.raises(EOFError):
        receive(io.BytesIO(pipe.getvalue()[:-1]))
