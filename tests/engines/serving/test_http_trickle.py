"""A request ends, whatever a server sends and however slowly."""

import re

import pytest
from tests.engines.serving.trickling import HEADERS, SHAPES, trickling

from mezo.engines.http.client import KEY, Client, ServerDown, Trouble

LIMIT = 0.4  # seconds: many times what is between two bytes, on a busy machine too


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_ends_however_slowly_its_answer_comes(shape: str) -> None:
    how = "no whole answer" if shape in ("a body", "chunks") else "no answer"
    with trickling(shape) as address:
        client = Client(address, timeout=LIMIT, retries=3)
        with pytest.raises(Trouble, match=f"^gave {how} to /generate for 0.4 seconds$") as caught:
            client.once("POST", "/generate", {"input_ids": [[1, 2]]})
        assert caught.value.silent


def test_it_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezo.engines.http.client.FIRST_WAIT", 0.001)
    with trickling("a body") as address:
        client, tries = Client(address, timeout=LIMIT, retries=3), []

        def attempt() -> object:
            tries.append(1)
            return client.once("GET", "/model_info")

        said = re.escape("gave no whole answer to /model_info for 0.4 seconds, 2 times")
        with pytest.raises(ServerDown, match=said):
            client.trying(attempt)
    assert len(tries) == 2


def test_an_answer_that_comes_slowly_and_ends_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "a short body", (HEADERS + b"Content-Length: 20\r\n\r\n", b"1"))
    with trickling("a short body", every=0.001) as address:
        assert Client(address, timeout=60, retries=0).once("GET", "/health") == int("1" * 20)
