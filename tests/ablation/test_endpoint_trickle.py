"""An endpoint's answer ends, in time and in size, whatever is sent."""

import gzip
import threading

import pytest
from tests.ablation.chat_server import Answer, said, serving
from tests.engines.serving.trickling import SHAPES, trickling

from mezo.errors import MezoError
from mezo.util import endpoint
from mezo.util.endpoint import Endpoint

pytest.importorskip("openai")
MESSAGES = ({"role": "user", "content": "Plan."},)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_trickles_is_given_up(shape: str) -> None:
    with (
        trickling(shape) as address,
        pytest.raises(MezoError, match=r"no answer within 0\.4 s, 1 times") as raised,
    ):
        Endpoint("toy", f"{address}/v1", timeout=0.4, retries=0).ask(MESSAGES)
    assert "\n" not in str(raised.value)


def test_no_more_is_held_than_an_answer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LONGEST", 1 << 20)
    with (
        serving(Answer(b" " * (2 << 20))) as server,
        pytest.raises(MezoError, match="an answer of more than 1 MiB"),
    ):
        Endpoint("toy", server.base_url, retries=0).ask(MESSAGES)


def test_nothing_is_unpacked() -> None:
    with serving(Answer(gzip.compress(b"{}"), headers={"content-encoding": "gzip"})) as server:
        with pytest.raises(MezoError, match="a packed answer, which was not asked for"):
            Endpoint("toy", server.base_url, retries=0).ask(MESSAGES)
        assert server.requests[0]["headers"]["accept-encoding"] == "identity"


def test_no_thread_is_left_of_an_answer() -> None:
    before = threading.active_count()
    with serving(said("yes")) as server:
        assert Endpoint("toy", server.base_url).ask(MESSAGES) == "yes"
    assert threading.active_count() == before
