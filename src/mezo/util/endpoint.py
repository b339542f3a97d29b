"""A language model behind an OpenAI-compatible endpoint.

The key of an endpoint comes from the environment (OPENAI_API_KEY) and is only sent with the request. Replies and errors
that repeat it are shown with it removed.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mezo.errors import MezoError
from mezo.util.http_bounds import TimeUp, Unbounded, whole
from mezo.util.secrets import hidden

KEY = "OPENAI_API_KEY"
LONGEST = 64 << 20  # bytes of an answer; the longest of a model have some hundred kilobytes
_READ = 20_000  # characters of a server's message that are searched
Messages = Sequence[Mapping[str, str]]  # {"role": "system" | "user" | "assistant", "content": text}


class Truncated(MezoError):
    """The answer ended at its limit of tokens. reply: the part that came."""

    def __init__(self, message: str, reply: str):
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible chat endpoint (`POST BASE_URL/chat/completions`).

    options: what its user calls base_url, timeout and max_tokens. extra: of this package, that brings the client. count: is
    told of the tokens of every answer, as the endpoint counts them.
    """

    model: str
    base_url: str
    timeout: float = 300.0  # seconds for one answer, to its last byte
    retries: int = 4  # after rate limits, 5xx and lost connections, with growing pauses
    max_tokens: int | None = None  # of an answer; None: the endpoint's own limit
    options: tuple[str, str, str] = ("--base-url", "--timeout", "--max-tokens")
    extra: str = "planner"
    count: Callable[[Any], None] = lambda usage: None

    def ask(self, messages: Messages) -> str:
        """The text of the answer.

        Raises Truncated if it ended at its limit, and MezoError if there is no answer.
        """
        openai = _openai(self.extra)
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise MezoError(
                f"{self.options[0]}: expected an address such as http://localhost:8000/v1, found {self._where!r}"
            )
        client = openai.OpenAI(
            api_key=os.environ.get(KEY) or "none",  # the client requires one, a private endpoint does not
            base_url=self.base_url,
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=_bounded(openai.DefaultHttpxClient, self.timeout),
        )
        limit: dict[str, Any] = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        try:
            with client:
                answer = client.chat.completions.create(model=self.model, messages=list(messages), **limit)  # pyright: ignore[reportArgumentType]
        except openai.OpenAIError as error:
            raise MezoError(self._clean(f"{self._where}: {self._reason(error)}")) from None
        except Unbounded as error:
            raise MezoError(f"{self._where}: {error}; is it an OpenAI-compatible endpoint?") from None
        except ValueError as error:  # the body is no JSON
            raise MezoError(f"{self._where}: expected JSON, found something else ({error})") from None
        self.count(getattr(answer, "usage", None))
        return self._text(answer)

    def _text(self, answer: Any) -> str:
        try:
            choice = answer.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            raise MezoError(
                f"{self._where}: expected an answer with choices, found none;"
                " is it the base URL of an OpenAI-compatible endpoint (often ending in /v1)?"
            ) from None
        text = self._clean(text) if isinstance(text, str) else ""
        if reason == "length":
            raise Truncated(
                f"{self._where}: the answer was cut off at its limit of tokens, after {len(text)} characters;"
                f" raise {self.options[2]}",
                text,
            )
        if not text.strip():
            raise MezoError(f"{self._where}: {self.model} answered nothing (finish_reason {reason!r})")
        return text

    def _reason(self, error: Any) -> str:
        """One line: what went wrong, and what to do."""
        openai = _openai(self.extra)
        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self.timeout:g} s, {self.retries + 1} times; raise {self.options[1]}"
        if isinstance(error.__cause__, Unbounded):  # some releases wrap what the HTTP client raises
            return f"{error.__cause__}; is it an OpenAI-compatible endpoint?"
        if isinstance(error, openai.APIConnectionError):
            cause = " ".join(str(error.__cause__ or error).split())
            return f"cannot connect ({cause}); is the server running, is {self.options[0]} right?"
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            state = "was refused" if os.environ.get(KEY) else "is not set"
            return f"not allowed: {KEY} {state} (status {status})"
        if status is None:
            return " ".join(str(error).split())
        what = {
            404: f"not found: is there a model {self.model!r}, is {self.options[0]} right?",
            429: f"rate limit or quota reached, {self.retries + 1} tries:",
        }
        return f"{what.get(status, f'answered status {status}:')} {self._server_says(error)}"

    @property
    def _where(self) -> str:
        """The address without secrets."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _clean(self, text: str) -> str:
        parts = urlsplit(self.base_url)
        return hidden(text, os.environ.get(KEY), parts.password, parts.username)

    def _server_says(self, error: Any) -> str:
        """The server's own message, shortened."""
        body = error.body.get("error", error.body) if isinstance(error.body, dict) else error.body
        text = body.get("message") if isinstance(body, dict) else body
        text = re.sub(r"<[^<>]*>", " ", str(text or ""))  # an error page
        words = self._clean(" ".join(text.split())[:_READ])
        return words[:200] if words else "no reason given"


def _bounded(base: type[Any], seconds: float) -> Any:
    """The openai package's HTTP client, of the httpx that it uses, with answers bounded in size and time.

    When the time is up it raises the error of that httpx, after which the package tries again.
    """
    httpx: Any = import_module(
        next(c.__module__ for c in base.__mro__ if "httpx" in c.__module__).partition(".")[0]
    )

    class Bounded(base):
        def send(self, request: Any, **options: Any) -> Any:
            def stream(asked: Any, inner: Any = super().send) -> Any:  # else it reads the answer itself
                return inner(asked, **{**options, "stream": True})

            try:
                return whole(stream, request, seconds, longest=LONGEST, abandon=self.close)
            except TimeUp:
                raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s", request=request) from None

    return Bounded(timeout=seconds)


def _openai(extra: str) -> Any:
    try:
        import openai
    except ImportError:
        raise MezoError(
            f"asking an endpoint needs the openai package: pip install 'mezo-llm[{extra}]'"
        ) from None
    return openai
