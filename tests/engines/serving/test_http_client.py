"""The client of engine http: kept connections, broken ones, and answers that are too long, packed or elsewhere."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mezo.engines.http.client import KEY, Client, RequestRefused, ServerDown, Trouble
from mezo.errors import MezoError
from mezo.util import http_bounds

SECRET = "sk-0123456789-abcdefghij"
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, *, kept: bool = False) -> Iterator[tuple[str, list[int]]]:
    """(address, the client ports of the requests so far)."""
    ports: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if kept else "HTTP/1.0"

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            ports.append(self.client_address[1])
            answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", ports
    finally:
        server.shutdown()
        server.server_close()


def sending(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_connection_is_kept() -> None:
    with serving(sending(b"[1]"), kept=True) as (address, ports):
        client = Client(address, timeout=30, retries=0)
        assert [client.once("POST", "/a", {}) for _ in range(3)] == [[1]] * 3
    assert len(ports) == 3
    assert len(set(ports)) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_tried_again(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mezo.engines.http.client.FIRST_WAIT", 0.001)
    tries = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        tries.append(1)
        whole = len(tries) > 1
        sending(b"[1, 2]" if whole else b"[1,", length=None if whole else 6)(handler)
        handler.close_connection = True

    with serving(answer, kept=kept) as (address, _):
        client = Client(address, timeout=30, retries=1)
        assert client.trying(lambda: client.once("GET", "/a")) == [1, 2]
    assert len(tries) == 2


def test_one_that_breaks_each_time_is_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezo.engines.http.client.FIRST_WAIT", 0.001)
    with serving(sending(b"{", length=9)) as (address, _):
        client = Client(address, timeout=30, retries=2)
        with pytest.raises(ServerDown, match=r"the connection failed at /a: peer closed .*, 3 times"):
            client.trying(lambda: client.once("GET", "/a"))


def test_nobody_there() -> None:
    with serving(sending(b"")) as (address, _):
        pass
    with pytest.raises(Trouble, match="the connection failed at /a"):
        Client(address, timeout=30, retries=0).once("GET", "/a")


def test_no_more_is_held_than_an_answer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_bounds, "LONGEST", 1 << 20)
    with (
        serving(sending(b" " * (2 << 20))) as (address, _),
        pytest.raises(MezoError, match="an answer of more than 1 MiB"),
    ):
        Client(address, timeout=30, retries=0).once("GET", "/a")


def test_nothing_is_unpacked() -> None:
    with (
        serving(sending(b"x", Content_Encoding="gzip")) as (address, _),
        pytest.raises(MezoError, match="a packed answer"),
    ):
        Client(address, timeout=30, retries=0).once("GET", "/a")


def test_no_redirect_is_followed_and_no_proxy_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(sending(b"", status=302, Location="/elsewhere")) as (address, ports):
        with pytest.raises(RequestRefused, match="HTTP 302"):
            Client(address, timeout=30, retries=0).once("GET", "/a")
        assert len(ports) == 1


@pytest.mark.parametrize("before", range(270, 305, 5))
@pytest.mark.parametrize("status", [400, 500])
def test_no_piece_of_the_key_shows_where_words_are_cut(
    before: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    body = json.dumps({"error": {"message": "x" * before + SECRET}}).encode()
    with (
        serving(sending(body, status=status)) as (address, _),
        pytest.raises((MezoError, Trouble)) as caught,
    ):
        Client(address, timeout=30, retries=0).once("GET", "/a")
    said = str(caught.value).replace(address, "")  # whose port may have four digits of the key
    assert not any(SECRET[at : at + 4] in said for at in range(len(SECRET) - 3))
