"""The processes of runs: started, awaited, and ended together with the study that started them."""

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
PROGRAM = (sys.executable, "-m", "mezo.ablation.run.process_main")
_TAIL = 1 << 16  # bytes of a log that are searched for its last line


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    ok: bool
    error: str | None = None  # its last line
    killed: bool = False  # by a signal, from outside


class Processes:
    """The processes that run now. `run` may be called from several threads, `stop` from any.

    The standard input of each is a pipe that only this process holds open: it closes however this process ends, even by
    SIGKILL, and then the other ends, too. Each is in its own session, so that Ctrl-C reaches the study alone.
    """

    def __init__(self, program: Sequence[str] = PROGRAM, *, trusting: bool = False) -> None:
        """trusting: whether models may run their own code, which no file of a study can say."""
        self._command = (*program, TRUST) if trusting else tuple(program)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, request: Path, log: Path, environment: Mapping[str, str]) -> Ended:
        """Run `PROGRAM request` to its end; its output goes to `log`."""
        with log.open("ab") as output:
            with self._lock:
                if self.stopped:
                    return Ended(False, "stopped")
                process = subprocess.Popen(
                    [*self._command, str(request)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,
                )
                self._running.add(process)
            with process:  # closes its input
                status = process.wait()
            with self._lock:
                self._running.discard(process)
        return Ended(True) if status == 0 else Ended(False, _last_line(status, log), status < 0)

    def stop(self) -> None:
        """End all that run, and start no more."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()  # its work is on the disk, and it resumes from there


def end_with_parent() -> None:
    """End this process as soon as its standard input closes, which is when the study ends."""

    def watch() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ends with the study").start()


def environment(threads: int | None) -> dict[str, str]:
    """This process's environment for a run. threads: of the run; a variable that is already set wins."""
    quiet = {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    limited = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**quiet, **limited, **os.environ}


def _last_line(status: int, log: Path) -> str:
    """Why a process failed: its last line, or the signal that ended it."""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = " (the system does this when memory runs out)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").strip().splitlines() or ["no output"]
    return " ".join(lines[-1].strip().removeprefix("mezo: error: ").split()) or f"exit status {status}"
