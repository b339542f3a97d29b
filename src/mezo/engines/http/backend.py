"""Running SGLang and vLLM servers, one or several, as one engine: LoRA through their HTTP interfaces.

    mezo train --engine http --server http://a:30000,http://b:30000 --tuning lora ...

The adapters of a step's probes are shared out among the servers. One that fails for good is left out, with a note,
and
the others answer in its place: the trajectory is the same to rounding. Adapters are loaded there under new names.
"""

import contextlib
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from mezo.engines.http.client import Client, ServerDown
from mezo.engines.http.folder import AdapterFolder
from mezo.engines.http.server import Server
from mezo.engines.http.settings import settings_of
from mezo.engines.http.share import at_once, shared_out
from mezo.engines.serving.backend import Answer, Ask, Backend, EngineSpec, Names, Tokens
from mezo.engines.serving.subprocess import EngineDied
from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.util.writing import Writing

RETURN_SECONDS = 30.0  # until a lost server is looked for again; twice as long after every look
_LOOK_SECONDS = 2.0  # that such a look may take
_PROBE = re.compile(r"mezo-[0-9a-f]{12}-\d+")  # a name of `serving_lora`'s; any other is given by a person

T = TypeVar("T")
Note = Callable[[str], None]


def start(spec: EngineSpec, note: Note | None = None) -> "Http":
    """note: called when a server is lost or found; default: warnings.

    Raises MezoError for a wrong address, option or model, and EngineDied if no server answers.
    """
    settings = settings_of(spec.server_args)
    addresses = list(dict.fromkeys(address.rstrip("/") for address in spec.servers))
    servers = [
        Server(Client(address, timeout=settings.timeout, retries=settings.retries), settings, spec.model)
        for address in addresses
    ]
    return Http(servers, AdapterFolder(settings), note or _warn)


class Http(Backend):
    """Running SGLang and vLLM servers, one or several, as one engine: LoRA by their HTTP interfaces.

    A server that fails for good is left out with a note; the others take its requests, under new adapter
    names. A step is a function of the probes, so the trajectory is the same to rounding.

    Example:
        mezo train --engine http --server http://a:30000,http://b:30000 --tuning lora --model ./my-model
    """

    def __init__(self, servers: Sequence[Server], folder: AdapterFolder, note: Note):
        self.servers, self.folder, self.note = list(servers), folder, note
        self.names = Names()
        self._paths: dict[str, str] = {}  # of the adapters, as the servers know them
        self._look: dict[
            str, tuple[float, float]
        ] = {}  # of a lost server: when to look for it, and the pause
        try:
            found = self._of_each(self.servers, [server.connect for server in self.servers])
            self._alive()
        except BaseException:
            folder.close()
            raise
        for server, kind in zip(self.servers, found, strict=True):
            if kind is not None:
                note(f"{server.address}: {kind}")

    # ---------------------------------------------------------------- Backend

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        return self._shared(
            asks, lambda server, numbers: server.score([asks[n] for n in numbers], self._paths)
        )

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        return self._shared(
            asks, lambda server, numbers: server.write([asks[n] for n in numbers], writing, self._paths)
        )

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        """A probe's adapter goes to a server when it is asked at; one that a person named, to all of them now."""
        self.names.take(name)
        try:
            self._paths[name] = path = self.folder.write(name, tensors, config)
        except BaseException:
            self.names.drop(name)
            raise
        if _PROBE.fullmatch(name):
            return
        try:
            alive = self._alive()
            self._of_each(alive, [partial(server.publish, name, path) for server in alive])
            self._alive()
        except BaseException:
            self.unload_adapter(name)
            raise
        self.note(f"adapter {name!r} is on the servers; they read it from {path}, which stays")

    def unload_adapter(self, name: str) -> None:
        self.names.drop(name)
        self._paths.pop(name)
        alive = [server for server in self.servers if server.why is None]
        self._of_each(alive, [partial(server.unload, name) for server in alive])
        self.folder.remove(name)

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        raise MezoError("engine http tunes LoRA alone: use --tuning lora, or --engine sglang or vllm")

    def flush(self) -> None:
        alive = self._alive()
        self._of_each(alive, [server.flush for server in alive])

    def close(self) -> None:
        """The servers stay, with the adapters that a person named; those of probes go."""
        for name in [name for name in self.names.loaded if _PROBE.fullmatch(name)]:
            with contextlib.suppress(MezoError):  # on the way out, perhaps because of that very server
                self.unload_adapter(name)
        self.folder.close()

    # ---------------------------------------------------------------- servers

    def _shared(self, asks: Sequence[Ask], call: Callable[[Server, list[int]], list[T]]) -> list[T]:
        """The answers, in order; what a server did not answer is asked of those that are left."""
        found: dict[int, T] = {}
        while left := [number for number in range(len(asks)) if number not in found]:
            servers = self._alive()
            shares = shared_out([asks[number] for number in left], len(servers))
            work = [
                (server, [left[n] for n in share])
                for server, share in zip(servers, shares, strict=True)
                if share
            ]
            answers = self._of_each(
                [server for server, _ in work], [partial(call, server, numbers) for server, numbers in work]
            )
            for (_, numbers), answered in zip(work, answers, strict=True):
                if answered is not None:
                    found.update(zip(numbers, answered, strict=True))
        return [found[number] for number in range(len(asks))]

    def _of_each(self, servers: Sequence[Server], calls: Sequence[Callable[[], T]]) -> list[T | None]:
        """What each server's call returned; None from one that is down, which is left out from now on."""
        found: list[T | None] = []
        failed: Exception | None = None
        for server, outcome in zip(servers, at_once(calls), strict=True):
            if isinstance(outcome, ServerDown):
                self._lose(server, str(outcome))
            elif isinstance(outcome, Exception):
                failed = failed or outcome
            found.append(None if isinstance(outcome, Exception) else outcome)
        if failed is not None:
            raise failed
        return found

    def _lose(self, server: Server, why: str) -> None:
        server.why = why
        self._look[server.address] = (time.monotonic() + RETURN_SECONDS, RETURN_SECONDS)
        others = sum(other.why is None for other in self.servers)
        if others:
            self.note(f"warning: {server.address} is left out: {why}; {others} of {len(self.servers)} go on")

    def _alive(self) -> list[Server]:
        """Raises EngineDied if there is no answer."""
        for server in self.servers:
            if server.why is not None:
                self._look_for(server)
        alive = [server for server in self.servers if server.why is None]
        if not alive:
            why = "; ".join(f"{server.address}: {server.why}" for server in self.servers)
            raise EngineDied(
                f"no server is left ({why}): what was trained is saved up to the last whole step; start a server, "
                "and go on with --resume"
            )
        return alive

    def _look_for(self, server: Server) -> None:
        """Use a server again that was lost, if it is back and its time to be looked for has come."""
        when, pause = self._look[server.address]
        if time.monotonic() < when:
            return
        self._look[server.address] = (time.monotonic() + 2 * pause, 2 * pause)
        try:
            server.connect(_LOOK_SECONDS, once=True)
        except (ServerDown, MezoError):
            return
        self.note(f"{server.address} is back")


def _warn(text: str) -> None:
    if text.startswith("warning: "):
        warnings.warn(text.removeprefix("warning: "), MezoWarning, stacklevel=4)
