"""Asking an endpoint, over real HTTP: good answers, and each way in which one can be none."""

import socket

import pytest
from tests.ablation.chat_server import Answer, refused, said, serving

from mezo.errors import MezoError
from mezo.util.endpoint import KEY, Endpoint, Truncated

SECRET = "sk-very-secret-0123456789"
MESSAGES = ({"role": "system", "content": "You plan."}, {"role": "user", "content": "Plan ∂."})

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


def test_the_answer_is_the_text_and_the_request_is_the_protocol() -> None:
    with serving(said("a plan ∂\n")) as server:
        assert Endpoint("toy", server.base_url, max_tokens=7).ask(MESSAGES) == "a plan ∂\n"
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["body"] == {"model": "toy", "messages": list(MESSAGES), "max_tokens": 7}
    assert request["headers"]["authorization"] == f"Bearer {SECRET}"


def test_no_limit_is_sent_unless_one_is_given() -> None:
    with serving(said("yes")) as server:
        Endpoint("toy", server.base_url).ask(MESSAGES)
    assert "max_tokens" not in server.requests[0]["body"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    busy = refused(status, "busy")
    with serving(busy, busy, said("at last")) as server:
        assert Endpoint("toy", server.base_url, retries=2).ask(MESSAGES) == "at last"
    assert len(server.requests) == 3


WRONG = {
    "rate limit": (
        refused(429, "too many requests"),
        "rate limit or quota reached, 2 tries: too many requests",
    ),
    "server error": (refused(500, "out of order"), "answered status 500: out of order"),
    "bad request": (refused(400, "context length exceeded"), "answered status 400: context length exceeded"),
    "no such model": (refused(404, "model toy does not exist"), "is there a model 'toy'.*does not exist"),
    "wrong key": (refused(401, f"Incorrect API key: {SECRET}"), "not allowed: OPENAI_API_KEY was refused"),
    "error page": (
        Answer(b"<html><b>Bad gateway</b></html>", 502, {"content-type": "text/html", "retry-after-ms": "1"}),
        "answered status 502: Bad gateway",
    ),
    "no JSON": (Answer(b'{"choices": ['), "expected JSON, found something else"),
    "a page": (
        Answer(b"<html>hello</html>", 200, {"content-type": "text/html"}),
        "expected an answer with choices",
    ),
    "other JSON": (Answer({"hello": "there"}), "expected an answer with choices"),
    "no choices": (Answer({"choices": []}), "expected an answer with choices"),
    "list": (Answer([1, 2]), "expected an answer with choices"),
    "null message": (Answer({"choices": [{"message": None}]}), "expected an answer with choices"),
    "empty": (said(" \n"), "toy answered nothing"),
    "null": (said(None), "toy answered nothing"),
    "lost": (Answer(drop=True), "cannot connect"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_answer_is_one_clear_line(kind: str) -> None:
    answer, message = WRONG[kind]
    with serving(answer) as server, pytest.raises(MezoError, match=message) as raised:
        Endpoint("toy", server.base_url, retries=1).ask(MESSAGES)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_slow_answer_is_given_up() -> None:
    with (
        serving(Answer("late", delay=0.5)) as server,
        pytest.raises(MezoError, match=r"no answer within 0\.05 s, 1 times"),
    ):
        Endpoint("toy", server.base_url, timeout=0.05, retries=0).ask(MESSAGES)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(MezoError, match=r"cannot connect .*is the server running"):
            Endpoint("toy", url, retries=0).ask(MESSAGES)


def test_a_cut_answer_keeps_what_came() -> None:
    with serving(said("half a pl", "length")) as server, pytest.raises(Truncated, match="cut off") as raised:
        Endpoint("toy", server.base_url).ask(MESSAGES)
    assert raised.value.reply == "half a pl"


def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint of one's own needs none; one that does says so."""
    monkeypatch.delenv(KEY)
    with serving(said("yes")) as server:
        assert Endpoint("toy", server.base_url).ask(MESSAGES) == "yes"
    with (
        serving(refused(401, "no key")) as server,
        pytest.raises(MezoError, match="OPENAI_API_KEY is not set"),
    ):
        Endpoint("toy", server.base_url).ask(MESSAGES)


def test_a_key_in_an_answer_is_blotted_out() -> None:
    with serving(said(f"your key is {SECRET}")) as server:
        endpoint = Endpoint("toy", server.base_url)
        assert endpoint.ask(MESSAGES) == "your key is ***"
    assert SECRET not in repr(endpoint)


def test_a_password_in_the_address_is_not_shown() -> None:
    with serving(refused(404, "none")) as server:
        endpoint = Endpoint("toy", server.base_url.replace("http://", "http://me:hidden@"), retries=0)
        with pytest.raises(MezoError) as raised:
            endpoint.ask(MESSAGES)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/b", "http://", "/v1", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(MezoError, match="--base-url: expected an address"):
        Endpoint("toy", url).ask(MESSAGES)
