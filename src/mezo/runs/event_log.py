"""RUN/events.jsonl: when a run was started, resumed, stopped, finished; in which environment.

Kept apart from the metrics, which are those of one uninterrupted run.
"""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from mezo.util.atomic_files import write_all
from mezo.util.json_text import to_json


def note(path: Path, kind: str, /, **values: Any) -> None:
    """Append a line. A last line that a crash tore is ended first, and is skipped by `read`."""
    line = {"event": kind, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values}
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        write_all(file, (torn * "\n" + to_json(line) + "\n").encode())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole; [] if there is no such file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get("event"), str):
            found.append(values)
    return found


def environment(device: str) -> dict[str, Any]:
    """What the last digits of a loss may depend on, besides the run itself."""
    import torch

    import mezo

    return {
        "mezo": mezo.__version__,
        "torch": torch.__version__,
        "device": device,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """ "torch 2.12, now 2.13; threads 8, now 4": what differs of two environments; "" if nothing does."""
    pairs = ((name, before[name], value) for name, value in now.items() if name in before)
    return "; ".join(f"{name} {old}, now {new}" for name, old, new in pairs if old != new)
