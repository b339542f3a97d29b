"""Asking a language model behind an OpenAI-compatible endpoint.

The key of an endpoint comes from the environment (OPENAI_API_KEY) and goes nowhere but into the request:
replies and errors that repeat it come back with it blotted out.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from mezo.errors import MezoError
from mezo.secrets import hidden
from mezo.whole_answers import TimeUp, Unbounded, whole

KEY = "OPENAI_API_KEY"
LONGEST = 64 << 20  # bytes of an answer; a model's longest have some hundred kilobytes
_READ = 20_000  # characters of foreign text that are looked at for a message
Messages = Sequence[Mapping[str, str]]  # {"role": "system" | "user" | "assistant", "content": text}


class Answers(Protocol):
    """Whatever answers messages: an Endpoint, or a model of this process."""

    def ask(self, messages: Messages) -> str: ...


class Truncated(MezoError):
    """The answer ended at its limit of tokens. reply: as far as it came."""

    def __init__(self, message: str, reply: str):
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible chat endpoint (`POST BASE_URL/chat/completions`)."""

    model: str
    base_url: str
    timeout: float = 300.0  # seconds for one answer, to its last byte
    retries: int = 4  # after rate limits, 5xx and lost connections, with growing pauses
    max_tokens: int | None = None  # of an answer; None: the endpoint's own limit
    # read when asked and in no repr, so that no traceback or log of this object shows it
    key: Callable[[], str | None] = field(default=lambda: os.environ.get(KEY), repr=False)

    def ask(self, messages: Messages) -> str:
        """The text of the answer.

        Raises Truncated if it ended at its limit, MezoError for everything else that is not an answer.
        """
        openai = _openai()
        _check_url(self.base_url)
        # a private endpoint asks for none, the client always does
        client = openai.OpenAI(
            api_key=self.key() or "none",
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
            raise MezoError(self._clean(self._told(error))) from None
        except Unbounded as error:
            raise MezoError(f"{self._where}: {error}; is it an OpenAI-compatible endpoint?") from None
        except ValueError as error:  # a body that is no JSON
            raise MezoError(f"{self._where}: expected JSON, found something else ({error})") from None
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
                " raise --max-tokens",
                text,
            )
        if not text.strip():
            raise MezoError(f"{self._where}: {self.model} answered nothing (finish_reason {reason!r})")
        return text

    def _told(self, error: Any) -> str:
        """One line of what went wrong, and what to do."""
        openai = _openai()
        if isinstance(error, openai.APITimeoutError):
            return f"{self._where}: no answer within {self.timeout:g} s, {self.retries + 1} times; raise --timeout"
        if isinstance(error.__cause__, Unbounded):  # releases that wrap whatever a client raises
            return f"{self._where}: {error.__cause__}; is it an OpenAI-compatible endpoint?"
        if isinstance(error, openai.APIConnectionError):
            cause = " ".join(str(error.__cause__ or error).split())
            return f"{self._where}: cannot connect ({cause}); is the server running, is --base-url right?"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            state = "was refused" if self.key() else "is not set"
            return f"{self._where}: not allowed: {KEY} {state} (status {error.status_code})"
        if isinstance(error, openai.NotFoundError):
            return f"{self._where}: not found: is there a model {self.model!r}, is --base-url right? {self._said(error)}"
        if isinstance(error, openai.RateLimitError):
            return (
                f"{self._where}: rate limit or quota reached, {self.retries + 1} tries: {self._said(error)}"
            )
        if isinstance(error, openai.APIStatusError):
            return f"{self._where}: answered status {error.status_code}: {self._said(error)}"
        return f"{self._where}: {' '.join(str(error).split())}"

    @property
    def _where(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _clean(self, text: str) -> str:
        return hidden(text, self.key(), urlsplit(self.base_url).password, urlsplit(self.base_url).username)

    def _said(self, error: Any) -> str:
        """The server's own words, briefly."""
        body = error.body
        if isinstance(body, dict):
            body = body.get("error", body)
        text = body.get("message") if isinstance(body, dict) else body
        text = re.sub(r"<[^<>]*>", " ", str(text or ""))  # an error page
        words = self._clean(" ".join(text.split())[:_READ])
        return words[:200] if words else "no reason given"


def _bounded(base: type[Any], seconds: float) -> Any:
    """The openai package's HTTP client (of whichever httpx it uses), its answers bounded as a whole.

    It raises that httpx's own error when the time is up, which the package tries again after.
    """
    httpx: Any = import_module(
        next(c.__module__ for c in base.__mro__ if "httpx" in c.__module__).partition(".")[0]
    )

    class Bounded(base):
        def send(self, request: Any, **options: Any) -> Any:
            options["stream"] = True  # else the answer would be read in there
            inner = super().send
            try:
                return whole(
                    lambda asked: inner(asked, **options),
                    request,
                    seconds,
                    longest=LONGEST,
                    abandon=self.close,
                )
            except TimeUp:
                raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s", request=request) from None

    return Bounded(timeout=seconds)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        found = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        raise MezoError(f"--base-url: expected an address such as http://localhost:8000/v1, found {found!r}")


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise MezoError("asking an endpoint needs the openai package: pip install 'mezo[planner]'") from None
    return openai
