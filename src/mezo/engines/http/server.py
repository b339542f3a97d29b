"""A running server, whichever it is: what `http_sglang` and `http_vllm` implement, and which adapters it has."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any, TypeVar

from mezo.engines.http.client import Client, RequestRefused, Trouble, api_key
from mezo.engines.http.settings import ServerSettings, check_model
from mezo.engines.serving.backend import Answer, Ask, Tokens
from mezo.errors import MezoError
from mezo.util.secrets import hidden
from mezo.util.writing import Writing

IDENTIFY_SECONDS = 10.0  # for a server to say what it is
T = TypeVar("T")


class Dialect(ABC):
    """One kind of server. Adapters have the names that the server knows.

    Every method is one try: it raises Trouble for what may pass, and RequestRefused for what will not.
    """

    kind: str
    served: str  # the path or hub id that the server was started with

    def __init__(self, client: Client):
        self.client = client

    @abstractmethod
    def score(self, asks: Sequence[Ask]) -> list[Answer]: ...

    @abstractmethod
    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]: ...

    @abstractmethod
    def load(self, name: str, path: str) -> None: ...

    @abstractmethod
    def unload(self, name: str) -> None: ...

    @abstractmethod
    def flush(self) -> None: ...


class Server:
    """A server and its adapters.

    A name is used once: a try whose answer was lost may have loaded an adapter, or cached keys and values under it,
    so a retry loads it under another name.
    """

    def __init__(self, client: Client, settings: ServerSettings, model: str):
        self.client, self.settings, self.model = client, settings, model
        self.address = client.address
        self.why: str | None = None  # how it was lost, if it was
        self._dialect: Dialect | None = None
        self._held: dict[str, str] = {}  # an adapter -> its name on the server
        self._left: list[str] = []  # names on the server, perhaps, that nobody asks for any more
        self._numbers = count()

    def connect(self, seconds: float = IDENTIFY_SECONDS, *, once: bool = False) -> str:
        """Find out what it is: its kind. once: without further tries.

        Raises MezoError if it is no SGLang or vLLM, or has another model; ServerDown.
        """
        tries = 0 if once else None
        self._dialect = self.client.trying(lambda: identify(self.client, seconds), retries=tries)
        check_model(self.address, self._dialect.served, self.model, self.settings.model_there)
        self._forget(list(self._held))
        self.why = None
        return self._dialect.kind

    def score(self, asks: Sequence[Ask], paths: Mapping[str, str]) -> list[Answer]:
        """paths: of every adapter that is asked for, as the server knows them."""

        def ask() -> list[Answer]:
            return self.dialect.score(self._named(asks))

        return self._with({ask.adapter for ask in asks}, paths, ask)

    def write(self, asks: Sequence[Ask], writing: Writing, paths: Mapping[str, str]) -> list[Tokens]:
        adapters = {ask.adapter for ask in asks}
        return self._with(adapters, paths, lambda: self.dialect.write(self._named(asks), writing))

    def _named(self, asks: Sequence[Ask]) -> list[Ask]:
        """With the adapters' names on the server."""
        return [replace(ask, adapter=self._name(ask.adapter)) for ask in asks]

    def publish(self, name: str, path: str) -> None:
        """Load an adapter under this very name, to stay."""
        self.client.trying(lambda: self._load(name, path, name))

    def unload(self, adapter: str) -> None:
        """Forget the adapter, if it is there, and whatever was left over."""
        self._forget([adapter])
        while self._left and self.why is None:
            self.client.trying(partial(self._unload, self._left[-1]))
            self._left.pop()

    def flush(self) -> None:
        self.client.trying(self.dialect.flush)

    @property
    def dialect(self) -> Dialect:
        assert self._dialect is not None  # `connect` comes first
        return self._dialect

    # ---------------------------------------------------------------- adapters

    def _name(self, adapter: str | None) -> str | None:
        return None if adapter is None else self._held[adapter]

    def _with(self, adapters: set[str | None], paths: Mapping[str, str], call: Callable[[], T]) -> T:
        """Call with the adapters loaded; load them again if the server no longer knows them (restarted, or evicted)."""
        wanted = sorted(adapter for adapter in adapters if adapter is not None)

        def load() -> None:
            for adapter in wanted:
                if adapter not in self._held:
                    self._load(adapter, paths[adapter], f"{adapter}-{next(self._numbers)}")

        def attempt() -> T:
            try:
                load()
                try:
                    return call()
                except RequestRefused as error:
                    if not wanted or error.status not in (400, 404):
                        raise
                    self._forget(wanted)
                    load()
                    return call()
            except Trouble:
                self._forget(wanted)
                raise

        return self.client.trying(attempt)

    def _load(self, adapter: str, path: str, name: str) -> None:
        self._left.append(name)  # until the server says that it has it
        try:
            self.dialect.load(name, path)
        except RequestRefused as error:
            self._known(name)
            raise RequestRefused(
                f"{error}; it was to load the adapter in {path}: the server must have LoRA and be able to read that "
                "folder (server_args adapter_folder; docs/engines.md)",
                error.status,
            ) from None
        self._known(name)
        self._held[adapter] = name

    def _known(self, name: str) -> None:
        """Whether the server has it is known: earlier tries count no more."""
        self._left = [left for left in self._left if left != name]

    def _forget(self, adapters: Sequence[str]) -> None:
        self._left += [self._held.pop(adapter) for adapter in adapters if adapter in self._held]

    def _unload(self, name: str) -> None:
        try:
            self.dialect.unload(name)
        except RequestRefused as error:
            if error.status not in (400, 404):  # it does not know the adapter: that was wanted
                raise


def identify(client: Client, seconds: float) -> Dialect:
    """What kind of server it is, by what only that kind answers.

    Raises MezoError if it is neither, Trouble if it is not there.
    """
    for kind in ("sglang", "vllm"):
        found: Any = import_module(f"mezo.engines.http.{kind}").find(client, seconds)
        if found is not None:
            return found
    raise MezoError(f"{client.address}: expected an SGLang or a vLLM server, found something else there")


def said(client: Client, path: str, seconds: float) -> Any:
    """The answer to a question that some servers do not know; None from those."""
    try:
        return client.once("GET", path, timeout=min(seconds, client.timeout))
    except RequestRefused as error:
        if error.status not in (404, 405):
            raise
        return None


def unexpected(client: Client, path: str, error: Exception) -> MezoError:
    how = f"{type(error).__name__}: {hidden(' '.join(str(error).split()), api_key())[:200]}"
    return MezoError(
        f"{client.address}: the answer to {path} is not of the form that engine http knows ({how}); it was tested with "
        "SGLang 0.5.23 and vLLM 0.32.0"
    )
