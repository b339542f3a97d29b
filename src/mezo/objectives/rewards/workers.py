"""Reward functions in processes of their own, under a time limit."""

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import copied, place

_MOST = 8  # processes
_TO_START = 120.0  # seconds, imports of the function's module included


class RewardWorkers:
    """Computes a function in up to 8 processes, which are started at the first call and end with this one.

    Args:
        name: module:function or file.py:function, with settings.
        seconds: the longest that the function may take for a row.
    """

    def __init__(self, name: str, seconds: float):
        self.name, self.seconds = name, seconds
        self.count = max(
            1, min(_MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        )
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for _ in range(self.count):
            self._idle.put(_Worker(name))

    def __call__(self, rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[Any]:
        """A value for each row. Raises MezoError, which names the first row without a value."""
        with ThreadPoolExecutor(self.count, "mezo-rewards") as pool:
            jobs = [pool.submit(self._ask, row, output) for row, output in zip(rows, outputs, strict=True)]
            try:
                return [job.result() for job in jobs]
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise

    def _ask(self, row: Mapping[str, Any], output: str) -> Any:
        where = place(self.name, row, output)
        try:
            question = json.dumps({"row": copied(row), "output": output})
        except (TypeError, ValueError) as error:
            raise MezoError(
                f"{where}: a field cannot be sent to another process ({error}): leave out --reward-timeout, or make it text"
            ) from None
        worker = self._idle.get()
        try:
            return _value(worker.ask(question, self.seconds))
        except MezoError as error:
            raise MezoError(f"{where}: {error}") from None
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes; a later call starts others."""
        for worker in list(self._idle.queue):
            worker.end()


def _value(answer: Mapping[str, Any]) -> Any:
    if "value" in answer:
        return answer["value"]
    raise MezoError(
        f"expected a finite number, found {answer['bad']}" if "bad" in answer else str(answer.get("error"))
    )


class _Worker:
    """One process, started when it is first asked, and again after it has ended."""

    def __init__(self, name: str):
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._end: weakref.finalize | None = None

    def ask(self, question: str, seconds: float) -> dict[str, Any]:
        """The answer. Raises MezoError if it does not arrive in time, or the process ends."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(question.encode() + b"\n")
            process.stdin.flush()
        except OSError:
            pass  # it has ended, which is what reading says
        return self._read(seconds, f"gave no reward within {seconds:g} s (--reward-timeout)")

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        command = [sys.executable, "-m", "mezo.objectives.rewards.worker_process", self._name]
        path = os.pathsep.join(each or os.getcwd() for each in sys.path)
        self._process = process = (
            subprocess.Popen(  # a session of its own: Ctrl-C is for the run, which then ends it
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        )
        self._end = weakref.finalize(self, _killed, process)
        answer = self._read(_TO_START, f"the function was not imported within {_TO_START:g} s")
        if "ready" not in answer:
            self.end()
            raise MezoError(str(answer.get("error")))
        return process

    def _read(self, seconds: float, late: str) -> dict[str, Any]:
        """The next line. Raises MezoError, and ends the process, if none comes; `late` says what to say then."""
        process, until = self._process, time.monotonic() + seconds
        assert process is not None
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, until - time.monotonic())):
                    self.end()
                    raise MezoError(late)
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    code = process.wait()
                    self.end()
                    raise MezoError(f"the process of the function ended (exit code {code})")
                self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            self.end()
            raise MezoError(f"the process of the function answered {line!r:.80}, which is no JSON") from None
        return found

    def end(self) -> None:
        """Kill the process and what it has started."""
        if self._end is not None:
            self._end()
        self._process, self._rest, self._end = None, b"", None


def _killed(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
