"""What an engine's log says it died of."""

import re
from pathlib import Path

from mezo.util.parsing import one_line
from mezo.util.secrets import hidden

_TAIL = (
    1 << 20
)  # bytes of a log's end that are looked at: what is written while an engine dies is a tenth of that
_LONGEST = 300  # characters

# Best first. An engine dies in stages, and each says less of why: memory runs out, so a worker is killed, so the process
# over it sees a pipe that ended, and whoever waits there sees that a process died.
_KINDS = (
    re.compile(
        r"out of memory|OutOfMemory|MemoryError|bad_alloc|annot allocate memory|[Nn]ot enough (?:GPU )?memory"
        r"|No space left|No available memory"
    ),
    re.compile(r"died unexpectedly|crashed with|\bKilled\b|[Ss]egmentation fault|core dumped|fatal signal"),
    re.compile(
        r"(?:^|[\s\]])(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b(?!\()"
    ),  # not in a line of source
)
# what those say who merely heard of it
_HEARSAY = re.compile(
    r"EngineDeadError|See stack trace|cancelled|BrokenPipeError|ConnectionResetError|EOFError|SIGQUIT received"
)
# what is printed of the work in hand may have anything in it
_DUMP = re.compile(r"Dumping (?:input data|scheduler output)")


def last_words(log: str) -> str:
    """The line that best explains what happened, at most 300 characters: of the best kind, the last one.

    Kinds: out of memory, a killed process, an exception, an exception about another failure, the last line; "none" if
    the log is empty.
    """
    lines = [one_line(line) for line in log.splitlines() if line.strip() and not _DUMP.search(line)]
    firsthand = [line for line in lines if not _HEARSAY.search(line)]
    for among in (firsthand, lines):
        for kind in _KINDS:
            if found := [line for line in among if kind.search(line)]:
                return hidden(found[-1])[:_LONGEST]
    return hidden(lines[-1])[:_LONGEST] if lines else "none"


def tail(path: Path) -> str:
    """The end of a log, which may have any size; "" if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read(_TAIL).decode(errors="replace")
    except OSError:
        return ""
