"""One server's HTTP interface: time limits, another try where that can help, and errors of one line.

Three endings of a request are told apart. An answer; a refusal (HTTP 3xx and 4xx: `Refused`, asking again
would change nothing); and trouble that may pass (no connection, no whole answer in time, HTTP 429 and 5xx),
which is tried again with growing pauses, and is `ServerDown` if it lasts.

Redirects are not followed and proxies not used: the API key goes to the address that was given, and nowhere
else. It comes from $MEZO_API_KEY, and is cut out of whatever a server says.
"""

import contextlib
import json
import os
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mezo.engines.http_deadline import Timely
from mezo.errors import MezoError
from mezo.parsing import parse_json

KEY = "MEZO_API_KEY"
FIRST_WAIT = 0.5  # seconds before the second try; each further one waits twice as long
LONGEST_WAIT = 30.0
CONNECT_SECONDS = 10.0  # for a connection, which a server that is there takes at once
_LONGEST = 1 << 28  # bytes of an answer; a step of 64 rows of 2,000 tokens has some 10 MB
_SAID = 300  # characters of what a server said

T = TypeVar("T")


class Refused(MezoError):
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
    """address: http://HOST:PORT[/PREFIX]. timeout: seconds that a request may take, to the last byte of its answer.

    A connection is waited for beside that, for CONNECT_SECONDS at each address of the host.
    """

    def __init__(self, address: str, *, timeout: float, retries: int):
        parts = urlsplit(checked_address(address))
        self.address, self.timeout, self.retries = address, timeout, retries
        self._secure, self._prefix = parts.scheme == "https", parts.path.rstrip("/")
        self._host, self._port = parts.hostname or "", parts.port
        self._key = api_key()

    def trying(self, attempt: Callable[[], T], *, retries: int | None = None) -> T:
        """What `attempt` returns, made again where its requests met trouble that may pass.

        What took the whole of the time limit is waited for a second time at most. Raises ServerDown.
        """
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
        """One try: the answer, as JSON values if it is JSON and else as text.

        Raises Refused or Trouble; `trying` is what takes the latter.
        """
        data = None if body is None else json.dumps(body).encode()
        limit = self.timeout if timeout is None else timeout
        sock: Timely | None = None
        try:
            with contextlib.closing(self._connected(limit)) as connection:
                sock = connection.sock = Timely(connection.sock, time.monotonic() + limit)
                connection.request(method, self._prefix + path, data, self._headers())
                response = connection.getresponse()
                said = self._read(response, path)
        except TimeoutError:
            how = "no whole answer" if sock is not None and sock.begun else "no answer"
            raise Trouble(f"gave {how} to {path} for {limit:g} seconds", silent=True) from None
        except ssl.SSLCertVerificationError as error:
            raise MezoError(
                f"{self.address}: its certificate is not trusted: {error.verify_message}"
            ) from None
        except (OSError, HTTPException) as error:
            how = self._hidden(" ".join(str(error).split())) or type(error).__name__
            raise Trouble(f"the connection failed at {path}: {how}") from None
        return self._taken(response, path, said)

    def _read(self, response: HTTPResponse, path: str) -> str:
        raw = response.read(_LONGEST + 1)
        if len(raw) > _LONGEST:
            raise MezoError(
                f"{self.address}: answers {path} with more than {_LONGEST >> 20} MB, which no server does"
            )
        return raw.decode(errors="replace")

    def _connected(self, limit: float) -> HTTPConnection:
        made = HTTPSConnection if self._secure else HTTPConnection
        connection = made(self._host, self._port, timeout=min(CONNECT_SECONDS, limit))
        try:
            connection.connect()
        except TimeoutError:
            raise OSError(f"no connection within {min(CONNECT_SECONDS, limit):g} seconds") from None
        connection.sock.settimeout(limit)
        return connection

    def _headers(self) -> dict[str, str]:
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        return found if self._key is None else found | {"Authorization": f"Bearer {self._key}"}

    def _taken(self, response: HTTPResponse, path: str, said: str) -> Any:
        status = response.status
        if status == 200:
            try:
                return parse_json(said)
            except ValueError:
                return said
        shown = f"HTTP {status} for {path}: {self._hidden(_message(said)) or response.reason}"
        if status == 429 or status >= 500:
            raise Trouble(shown, after=_seconds(response.getheader("Retry-After")))
        if status in (401, 403):
            shown += f"; set {KEY} to the server's API key" if self._key is None else f"; is {KEY} right?"
        raise Refused(f"{self.address}: {shown}", status)

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


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
    return " ".join(said.split())[:_SAID]


def _seconds(header: str | None) -> float | None:
    """Of Retry-After; a date, which these servers do not send, counts as nothing."""
    return (
        float(header)
        if header is not None and header.strip().isascii() and header.strip().isdecimal()
        else None
    )
