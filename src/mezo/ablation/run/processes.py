"""Processes of runs: started, waited for, and ended with the study that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TRUST = "--trust-remote-code"
CHILD = (sys.executable, "-m", "mezo.ablation.run.process_main")
_TAIL = 1 << 16  # bytes of a log in which its last words are looked for


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process came to its end."""

    ok: bool
    error: str | None = None  # its last words, in one line
    killed: bool = False  # by a signal, from outside


class Children:
    """The processes that run now. `run` may be called from several threads, `stop` from any.

    A child's standard input is a pipe whose other end this process alone holds: it closes however this
    process ends, even by SIGKILL, and the child ends when it sees that. Each is in a session of its
    own, so that Ctrl-C reaches the study and not the runs behind its back.
    """

    def __init__(self, command: Sequence[str] = CHILD, *, trusting: bool = False) -> None:
        """trusting: whether models may run code of their own, which no file of a study says."""
        self._command, self._flags = tuple(command), (TRUST,) if trusting else ()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, request: Path, log: Path, environment: Mapping[str, str]) -> Ended:
        """Run `COMMAND request` to its end; what it prints goes to `log`."""
        with log.open("ab") as said:
            with self._lock:
                if self.stopped:
                    return Ended(False, "stopped")
                child = subprocess.Popen(
                    [*self._command, *self._flags, str(request)],
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,
                )
                self._running.add(child)
            try:
                status = child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)
                if child.stdin is not None:
                    child.stdin.close()
        return Ended(True) if status == 0 else Ended(False, _last_words(status, log), status < 0)

    def stop(self) -> None:
        """End all that run, and start no more."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()  # what it has done is on the disk, and it goes on from there


def end_with_parent() -> None:
    """In a child: end this process as soon as its standard input does, which is when the study ends."""

    def watch() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ends with the study").start()


def environment(threads: int | None) -> dict[str, str]:
    """This process's environment for a child. threads: of one run; what the person has set wins."""
    quiet = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    limited = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**quiet, **limited, **os.environ}


def _last_words(status: int, log: Path) -> str:
    """Why a process failed: its last line, and the signal that ended it, if one did."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = " (the system ends a process so when memory runs out)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    said = lines[-1].removeprefix("mezo: error: ") if lines else "it said nothing"
    return " ".join(said.split()) or f"exit status {status}"
