"""One server's HTTP interface: time limits, retries where they can help, and errors of one line.

A request ends with an answer, a refusal (HTTP 3xx and 4xx: `RequestRefused`), or trouble that may pass (no
connection, no whole answer in time, HTTP 429 and 5xx), which is retried with growing pauses and is `ServerDown` if it
lasts.

Redirects are not followed and proxies not used: the API key ($MEZO_API_KEY) goes only to the given address, and is
cut out of whatever a server says.
"""

import contextlib
import json
import os
import ssl
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mezo.errors import MezoError
from mezo.util import http_bounds
from mezo.util.parsing import parse_json
from mezo.util.secrets import hidden

if TYPE_CHECKING:
    import httpx

KEY = "MEZO_API_KEY"
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
FIRST_WAIT = 0.5  # seconds before the second try; each further one waits twice as long
LONGEST_WAIT = 30.0
CONNECT_SECONDS = 10.0  # for a connection, which a server that is there takes at once
_SAID, _READ = 300, 20_000  # characters of what a server said: that are shown, and that are looked at

T = TypeVar("T")


class RequestRefused(MezoError):
    """A server understood a request, and will not do it."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


class ServerDown(Exception):
    """A server is gone, silent, or keeps failing; the text says how, without its address."""


class Trouble(Exception):
    """One try failed, and the next may not. after: seconds that the server wants to be left alone."""

    def __init__(self, how: str, *, silent: bool = False, after: float | None = None):
        super().__init__(how)
        self.silent, self.after = silent, after


class Client:
    """address: http://HOST:PORT[/PREFIX]. timeout: seconds for a request, to the last byte of its answer.

    Connecting may take half of these, and CONNECT_SECONDS at most. Connections are kept; threads may share a client.
    """

    def __init__(self, address: str, *, timeout: float, retries: int):
        checked_address(address)
        self.address, self.timeout, self.retries = address, timeout, retries
        self._key = api_key()
        self._free: list[httpx.Client] = []  # kept connections that no request uses
        weakref.finalize(self, _close, self._free)

    def trying(self, attempt: Callable[[], T], *, retries: int | None = None) -> T:
        """What `attempt` returns, retried after Trouble; once at most after a full timeout. Raises ServerDown."""
        most, tries = self.retries if retries is None else retries, 0
        while True:
            try:
                return attempt()
            except Trouble as trouble:
                tries += 1
                if tries > (min(most, 1) if trouble.silent else most):
                    raise ServerDown(f"{trouble}{f', {tries} times' if tries > 1 else ''}") from None
                wait = FIRST_WAIT * 2 ** (tries - 1) if trouble.after is None else trouble.after
                time.sleep(min(wait, LONGEST_WAIT))

    def once(self, method: str, path: str, body: Any = None, *, timeout: float | None = None) -> Any:
        """One try: the answer, as JSON values if it is JSON and else as text. Raises RequestRefused or Trouble."""
        import httpx

        limit = self.timeout if timeout is None else timeout
        data = None if body is None else json.dumps(body).encode()
        connecting = min(CONNECT_SECONDS, limit / 2)
        kept = self._connection()
        request = kept.build_request(
            method,
            self.address.rstrip("/") + path,
            content=data,
            headers=_JSON if self._key is None else _JSON | {"Authorization": f"Bearer {self._key}"},
            timeout=httpx.Timeout(limit, connect=connecting),
        )
        try:
            response = http_bounds.whole(
                lambda asked: kept.send(asked, stream=True),
                request,
                limit,
                longest=http_bounds.LONGEST,
                abandon=kept.close,
            )
        except BaseException as error:
            kept.close()
            raise self._told(error, path, limit, connecting) from None
        self._free.append(kept)
        return self._taken(response, path)

    def _connection(self) -> "httpx.Client":
        import httpx

        with contextlib.suppress(IndexError):
            return self._free.pop()
        secure = self.address.startswith("https:")
        return httpx.Client(
            trust_env=False, follow_redirects=False, verify=ssl.create_default_context() if secure else False
        )

    def _told(self, error: BaseException, path: str, limit: float, connecting: float) -> BaseException:
        """What is raised for an error of one try."""
        import httpx

        if isinstance(error, http_bounds.Unbounded):
            return MezoError(f"{self.address}: answers {path} with {error}, which no server does")
        if isinstance(error, httpx.ConnectTimeout):
            return Trouble(f"the connection failed at {path}: no connection within {connecting:g} seconds")
        if isinstance(error, http_bounds.TimeUp | httpx.TimeoutException):
            how = "no whole answer" if isinstance(error, http_bounds.TimeUp) and error.begun else "no answer"
            return Trouble(f"gave {how} to {path} for {limit:g} seconds", silent=True)
        if untrusted := _untrusted(error):
            return MezoError(f"{self.address}: its certificate is not trusted: {untrusted.verify_message}")
        if isinstance(error, httpx.HTTPError | httpx.StreamError | OSError):
            how = self._hidden(" ".join(str(error).split())[:_READ])[:_SAID] or type(error).__name__
            return Trouble(f"the connection failed at {path}: {how}")
        return error

    def _taken(self, response: "httpx.Response", path: str) -> Any:
        status, said = response.status_code, response.content.decode(errors="replace")
        if status == 200:
            try:
                return parse_json(said)
            except ValueError:
                return said
        words = self._hidden(_message(said))[:_SAID] or self._hidden(response.reason_phrase)
        shown = f"HTTP {status} for {path}: {words}"
        if status == 429 or status >= 500:
            raise Trouble(shown, after=_seconds(response.headers.get("Retry-After")))
        if status in (401, 403):
            shown += f"; set {KEY} to the server's API key" if self._key is None else f"; is {KEY} right?"
        raise RequestRefused(f"{self.address}: {shown}", status)

    def _hidden(self, text: str) -> str:
        return hidden(text, self._key)


def _close(kept: "list[httpx.Client]") -> None:
    for client in kept:
        client.close()


def _untrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What is behind an error, where that is a certificate."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def checked_address(address: str) -> str:
    """Raises MezoError unless it is http[s]://HOST[:PORT][/PREFIX], with nothing secret in it."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise MezoError(
            f"--server: the address of {parts.hostname} has a name, a password or a query in it, and addresses are "
            f"saved with a run: expected http://HOST:PORT; an API key goes into the environment ({KEY})"
        )
    if not whole:
        raise MezoError(f"--server {address!r}: expected http://HOST:PORT or https://HOST:PORT")
    return address


def api_key() -> str | None:
    """Raises MezoError for one that no header can hold; the message does not show it."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise MezoError(f"{KEY}: expected printable ASCII without spaces, found something else")
    return key


def _message(said: str) -> str:
    """What a server means by an error: its words out of the JSON they come in, as one line."""
    with contextlib.suppress(ValueError):
        found = parse_json(said)
        for key in ("error", "error_message", "message", "detail"):
            while isinstance(found, dict) and found.get(key):
                found = found[key]
        said = found if isinstance(found, str) else json.dumps(found)
    return " ".join(said.split())[:_READ]


def _seconds(header: str | None) -> float | None:
    """Of Retry-After; a date, which these servers do not send, counts as nothing."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() else None
