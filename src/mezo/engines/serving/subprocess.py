"""A serving engine in a process of its own, so that its death is an error message and no more.

SGLang kills its parent when a scheduler dies, and an engine that hangs would hang the run. So a child process holds
the engine (`mezo.engines.serving.subprocess_main`), in its own process group; calls go through a pipe with a time
limit. The child may run under another environment's Python, since the engines' pinned dependencies conflict.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

import mezo
from mezo.engines.serving.backend import Answer, Ask, Backend, EngineSpec, Names, Tensors, Tokens
from mezo.engines.serving.last_words import last_words, tail
from mezo.engines.serving.subprocess_main import packed, values_of
from mezo.engines.serving.wire import Patient, receive, send
from mezo.errors import MezoError
from mezo.models.smollm2 import cache_folder
from mezo.util.writing import Writing

START_SECONDS = 1800.0  # importing an engine, loading a model, compiling
CALL_SECONDS = 900.0  # one call; $MEZO_ENGINE_SECONDS changes it


_OF_A_DEATH = re.compile(
    r"method failed: (Executor failed|cancelled)|EngineDeadError|EngineCore encountered|died unexpectedly"
)


class EngineDied(MezoError):
    """The engine's process ended or kept silent for too long; it is gone, and must be started anew."""


def start(
    engine: str, spec: EngineSpec, *, python: str | None = None, note: Callable[[str], None] | None = None
) -> "Hosted":
    """Start an engine ("sglang", "vllm", or any module of `mezo.engines`) in a process of its own.

    python: its interpreter; default: $MEZO_SGLANG_PYTHON and so on, else this one. note: called with what takes a
    while. Raises MezoError if the engine refuses, EngineDied if it dies.
    """
    python = python or os.environ.get(f"MEZO_{engine.upper()}_PYTHON") or sys.executable
    if not Path(python).is_file():
        raise MezoError(f"no Python interpreter {python!r} (MEZO_{engine.upper()}_PYTHON)")
    if note is not None:
        note(f"starting {engine} with {spec.model}: about a minute")
    hosted = Hosted(engine, python)
    try:
        hosted.ask("start", values_of(spec), seconds=START_SECONDS)
    except BaseException:
        hosted.kill()
        raise
    return hosted


class Hosted(Backend):
    """The engine in the child process. Safe to forget: the child ends with this object."""

    def __init__(self, engine: str, python: str):
        self.engine = engine
        self.names = Names()
        folder = Path(tempfile.mkdtemp(prefix=f"mezo-{engine}-"))
        self.log = folder / "log"
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = [
            python,
            "-m",
            "mezo.engines.serving.subprocess_main",
            engine,
            str(theirs_in),
            str(theirs_out),
        ]
        try:
            with self.log.open("wb") as log:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs_in, theirs_out),
                    start_new_session=True,
                    env=_environment(python),
                )
        except OSError as error:
            os.close(ours_in)
            os.close(ours_out)
            shutil.rmtree(folder, ignore_errors=True)
            raise MezoError(f"{engine}: cannot start {python}: {error.strerror}") from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._in: BinaryIO = os.fdopen(ours_in, "rb", buffering=0)
        self._out: BinaryIO = os.fdopen(ours_out, "wb", buffering=0)
        for end in (ours_in, ours_out):
            os.set_blocking(end, False)
        self._open = True
        self._why: EngineDied | None = None  # of a death that was reported, to be reported again
        self._seconds = float(os.environ.get("MEZO_ENGINE_SECONDS") or CALL_SECONDS)
        self._finalizer = weakref.finalize(self, _end, self._child, folder)

    # ---------------------------------------------------------------- Backend

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        listed = [[ask.tokens, ask.start, ask.adapter, ask.choices] for ask in asks]
        found = self.ask("score", {"asks": listed})
        return [Answer(tuple(values), prompt, cached) for values, prompt, cached in found]

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        listed = [[ask.tokens, ask.adapter, ask.seed] for ask in asks]
        found = self.ask("write", {"asks": listed, "writing": dataclasses.asdict(writing)})
        return [tuple(tokens) for tokens in found]

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        self.load_adapters({name: tensors}, config)

    def unload_adapter(self, name: str) -> None:
        self.unload_adapters([name])

    def load_adapters(self, adapters: Mapping[str, Tensors], config: Mapping[str, Any]) -> None:
        """In one message; how many calls of the engine's that takes is its backend's own affair."""
        taken: list[str] = []
        try:
            for name in adapters:
                self.names.take(name)
                taken.append(name)
            self.ask("load_adapters", {"names": taken, "config": dict(config)}, packed(adapters.values()))
        except BaseException:
            for name in taken:
                self.names.drop(name)
            raise

    def unload_adapters(self, names: Sequence[str]) -> None:
        for name in names:
            self.names.drop(name)
        if names:
            self.ask("unload_adapters", {"names": list(names)})

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.ask("call_workers", {"operation": operation, "arguments": dict(arguments)})

    def flush(self) -> None:
        self.ask("flush", {})

    def close(self) -> None:
        if self._open:
            try:
                self.ask("close", {}, seconds=60)
            except MezoError:
                pass  # it is gone, which is what was wanted
            finally:
                self.kill()

    # ---------------------------------------------------------------- the pipe

    def ask(
        self,
        call: str,
        arguments: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor] | None = None,
        *,
        seconds: float | None = None,
    ) -> Any:
        """What the child answers. Raises MezoError if the engine refused, EngineDied if there is no answer."""
        if not self._open:
            raise self._why or EngineDied(f"{self.engine} was closed: start it anew")
        message = arguments if call == "start" else {"call": call, "arguments": arguments}
        limit = self._seconds if seconds is None else seconds
        pipe: Any = Patient(self._in, self._out, time.monotonic() + limit, self._child)
        try:
            send(pipe, message, tensors)
            answer, _ = receive(pipe)
        except TimeoutError:
            raise self._died(f"gave no answer to {call!r} for {limit:g} seconds") from None
        except (EOFError, OSError):
            raise self._died(f"ended during {call!r}") from None
        except (
            KeyboardInterrupt,
            MezoError,
        ):  # MezoError: no message, so what comes after it is not one either
            self.kill()  # an answer that nobody waits for would be taken for the next one
            raise
        if "error" in answer:
            if _OF_A_DEATH.search(
                str(answer["error"])
            ):  # a worker is gone, and the process over it is about to go
                raise self._died(f"ended during {call!r}")
            raise MezoError(f"{self.engine}: {answer['error']}")
        return answer["ok"]

    def _died(self, how: str) -> EngineDied:
        status = self._child.poll()
        _kill(self._child)
        words = last_words(tail(self.log))
        kept = Path(tempfile.gettempdir()) / f"mezo-{self.engine}-{self._child.pid}.log"
        with contextlib.suppress(OSError):
            os.replace(
                self.log, kept
            )  # in place of whatever has that name: a link would be followed by a write
        self.kill()
        ended = "" if status is None else f" (exit status {status})"
        self._why = EngineDied(
            f"{self.engine} {how}{ended}; its last words: {words}; whole log: {kept}. What was trained "
            "is saved up to the last whole step; start again, with less memory in server_args if it ran out"
        )
        return self._why

    def kill(self) -> None:
        """End the child and everything it started, at once."""
        self._open = False
        self._finalizer()
        for end in (self._in, self._out):
            with contextlib.suppress(OSError):
                end.close()


def _environment(python: str) -> dict[str, str]:
    """The child's. Another Python finds this package but none of its dependencies, and has its own numba cache."""
    found = dict(os.environ)
    if os.path.abspath(python) == os.path.abspath(sys.executable):
        return found
    package = Path(mezo.__file__).parent
    known = hashlib.sha256(f"{package}\n{python}".encode()).hexdigest()[:16]
    folder = cache_folder() / "hosted" / known
    link = folder / "path" / "mezo"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(package, target_is_directory=True)
    found.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(link.parent), found.get("PYTHONPATH")]))
    return found


def _end(child: "subprocess.Popen[bytes]", folder: Path) -> None:
    _kill(child)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """The child's whole process group: its workers too, which may have outlived it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
