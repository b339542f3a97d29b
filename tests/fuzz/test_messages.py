"""What another process says: engines over pipes, servers over HTTP. An answer, or one clear error."""

import contextlib
import io
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fuzz.corpus import broken, twisted
from tests.fuzz.harness import dumped, survive

from mezo.engines.http import sglang, vllm
from mezo.engines.http.client import Client, Trouble
from mezo.engines.http.server import Dialect
from mezo.engines.http.settings import check_model
from mezo.engines.serving import wire
from mezo.engines.serving.backend import Ask
from mezo.errors import MezoError
from mezo.util import http_bounds
from mezo.util.writing import Writing

FAST, WHOLE = 20, 500
ADDRESS = "http://server:1"

ROWS = [Ask((5, 6, 7), 1), Ask((5, 9), choices=(3, 4))]
SGLANG_SCORES = [
    {
        "meta_info": {
            "prompt_tokens": 3,
            "cached_tokens": 1,
            "input_token_logprobs": [[None, 5, None], [-1.0, 6, None], [-0.5, 7, None]],
        }
    },
    {
        "meta_info": {
            "prompt_tokens": 2,
            "cached_tokens": 0,
            "output_token_ids_logprobs": [[[-1.0, 3, None], [-2.0, 4, None]]],
        }
    },
]
SGLANG_TEXTS = [{"text": "yes", "output_ids": [5, 6]}, {"text": "no", "output_ids": [7]}]
VLLM_TOKENS = {
    "choices": [{"index": 0, "prompt_logprobs": [None, {"6": {"logprob": -1.0}}, {"7": {"logprob": -0.5}}]}]
}
VLLM_CHOICES = {
    "choices": [{"index": 0, "logprobs": {"top_logprobs": [{"token_id:3": -1.0, "token_id:4": -2.0}]}}]
}
VLLM_TEXTS = {
    "choices": [{"index": 1, "text": "b", "token_ids": [5]}, {"index": 0, "text": "a", "token_ids": [6, 7]}]
}


class Saying(Client):
    """A server that answers every question with the same values."""

    def __init__(self, values: Any) -> None:
        super().__init__(ADDRESS, timeout=1.0, retries=0)
        self._values = values

    def once(self, method: str, path: str, body: Any = None, *, timeout: float | None = None) -> Any:
        return self._values


def _sglang(values: Any) -> None:
    found = sglang.SGLangServer(Saying(values), "m").score(ROWS)
    assert [len(answer.logprobs) for answer in found] == [2, 2]
    assert all(isinstance(number, float) for answer in found for number in answer.logprobs)
    assert all(isinstance(answer.cached_tokens, int) for answer in found)


def _vllm(asks: list[Ask]) -> Callable[[Any], None]:
    def read(values: Any) -> None:
        found = vllm.VLLMServer(Saying(values), "m", "m").score(asks)
        assert all(isinstance(number, float) for answer in found for number in answer.logprobs)

    return read


def _texts(server: Callable[..., Dialect], *named: str) -> Callable[[Any], None]:
    def read(values: Any) -> None:
        found = server(Saying(values), *named).write([Ask((5,)), Ask((6,))], Writing(4, ("\n",)))
        assert len(found) == 2
        assert all(isinstance(token, int) for tokens in found for token in tokens)

    return read


def _identified(module: Any) -> Callable[[Any], None]:
    def read(values: Any) -> None:
        found = module.find(Saying(values), 1.0)
        if found is not None:
            check_model(ADDRESS, found.served, "/nowhere", None)

    return read


REPLIES: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "sglang scores": (SGLANG_SCORES, _sglang),
    "sglang texts": (SGLANG_TEXTS, _texts(sglang.SGLangServer, "m")),
    "sglang says what it is": ({"model_path": "/nowhere"}, _identified(sglang)),
    "vllm tokens": (VLLM_TOKENS, _vllm(ROWS[:1])),
    "vllm choices": (VLLM_CHOICES, _vllm(ROWS[1:])),
    "vllm texts": (VLLM_TEXTS, _texts(vllm.VLLMServer, "m", "m")),
    "vllm says what it is": (
        {"version": "1", "data": [{"id": "a", "root": "/nowhere"}]},
        _identified(vllm),
    ),
}


def _replies(name: str, count: int) -> int:
    sound, read = REPLIES[name]
    return survive(twisted(sound, count), read)


@pytest.mark.parametrize("name", [name for name in REPLIES if "what it is" not in name])
def test_sound_replies_are_read(name: str) -> None:
    sound, read = REPLIES[name]
    read(sound)


@pytest.mark.parametrize("name", REPLIES)
def test_some_twisted_replies(name: str) -> None:
    assert _replies(name, FAST) == FAST


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLIES)
def test_many_twisted_replies(name: str) -> None:
    assert _replies(name, WHOLE) == WHOLE


# ---------------------------------------------------------------- HTTP itself

BODY = json.dumps(VLLM_TEXTS).encode()
HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
BUSY = b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


def _answered(raw: bytes) -> Any:
    """What the client makes of these bytes, and an end of the connection after them."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(raw)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            return Client(address, timeout=5.0, retries=0).once("GET", "/x")
        finally:
            thread.join()


def _http(count: int) -> int:
    cases = [raw for sound in (HTTP, BUSY, CHUNKED) for raw in broken(sound, count)]
    return survive(cases, _answered, also=(Trouble,))


def test_some_broken_http() -> None:
    assert _answered(HTTP) == VLLM_TEXTS
    assert _http(FAST) == 3 * FAST


@pytest.mark.slow
def test_much_broken_http() -> None:
    assert _http(WHOLE) == 3 * WHOLE


@pytest.mark.parametrize("wait", [b"\xb2", b"9" * 3000, b"-1", b"Wed, 21 Oct 2015 07:28:00 GMT", b"1e9", b""])
def test_whatever_a_server_wants_waited_for(wait: bytes) -> None:
    with pytest.raises(Trouble, match="HTTP 429"):
        _answered(BUSY.replace(b"Retry-After: 3", b"Retry-After: " + wait))


def test_an_answer_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_bounds, "LONGEST", 100)
    with pytest.raises(MezoError, match="answers /x with an answer of more than"):
        _answered(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101)


# ---------------------------------------------------------------- pipes


def _message() -> bytes:
    to = io.BytesIO()
    wire.send(to, {"ok": [1, "a"]}, {"w": torch.arange(6.0).view(2, 3), "empty": torch.empty(0, 3)})
    return to.getvalue()


def _messages(count: int) -> list[bytes]:
    sound = _message()
    size = struct.unpack_from("<Q", sound)[0]
    header, rest = json.loads(sound[8 : 8 + size]), sound[8 + size :]
    others = map(dumped, twisted(header, count))
    return [*broken(sound, count), *(struct.pack("<Q", len(other)) + other + rest for other in others)]


def test_some_broken_messages() -> None:
    value, tensors = wire.receive(io.BytesIO(_message()))
    assert value == {"ok": [1, "a"]}
    assert tensors["w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert survive(_messages(FAST), lambda raw: wire.receive(io.BytesIO(raw)), also=(EOFError,)) == 2 * FAST


@pytest.mark.slow
def test_many_broken_messages() -> None:
    count = 2 * WHOLE
    assert survive(_messages(count), lambda raw: wire.receive(io.BytesIO(raw)), also=(EOFError,)) == 2 * count


@pytest.mark.parametrize("shape", [[10**9, 10**9], [-1, 4], [2, -3], [1e400], ["x"], 3, None])
def test_shapes_that_no_tensor_has(shape: Any) -> None:
    header = dumped({"value": None, "tensors": [["w", "float32", shape]]})
    with pytest.raises(MezoError, match="no message of an engine"):
        wire.receive(io.BytesIO(struct.pack("<Q", len(header)) + header))
