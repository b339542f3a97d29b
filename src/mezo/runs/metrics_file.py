"""metrics.jsonl of a run: one line a step, one line an evaluation."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.util.atomic_files import write_all
from mezo.util.json_text import to_json

_KINDS: dict[type, str] = {StepRecord: "step", EvalRecord: "eval"}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for kind, name in _KINDS.items()}


class MetricsWriter:
    """Appends to metrics.jsonl, a line a record, each written through at once.

    A last line torn by a crash is cut off first. keep: bytes of the file to go on after; None: all of it.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        if path.exists():
            data = path.read_bytes()[:keep]
            os.truncate(path, data.rfind(b"\n") + 1)
        # without a buffer of our own: a write that fails must not be tried again when the file is closed
        self._file = path.open("ab", buffering=0)

    def write(self, record: StepRecord | EvalRecord) -> None:
        line = {"kind": _KINDS[type(record)], **asdict(record)}
        for name in (
            "profile",
            "losses",
            "dead_groups",
            "rewards",
            "examples_fingerprint",
        ):  # most runs have none: no field for it on every line
            if line.get(name, ...) is None:
                del line[name]
        write_all(self._file, (to_json(line) + "\n").encode())

    def sync(self) -> None:
        """On return all lines survive a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Metrics:
    steps: list[StepRecord]
    evals: list[EvalRecord]


def read_metrics(path: Path) -> Metrics:
    """The records of metrics.jsonl; null losses and gradients are NaN. A last line without a newline is dropped.

    Raises MezoError, naming the line, if anything else is no record, or the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MezoError(f"{path}: cannot read the metrics: {error.strerror}") from None
    metrics = Metrics([], [])
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        record = record_of(line, f"{path}:{number}")
        if isinstance(record, StepRecord):
            metrics.steps.append(record)
        else:
            metrics.evals.append(record)
    return metrics


def record_of(line: str, where: str) -> StepRecord | EvalRecord:
    """The record that a line of metrics.jsonl is. Raises MezoError, saying `where`, if it is not one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MezoError(f"{where}: expected a JSON object, found {line[:40]!r} ({error})") from None
    kind = str(values.pop("kind", None)) if isinstance(values, dict) else None
    if kind not in _ADAPTERS:
        raise MezoError(f"{where}: expected an object of kind 'step' or 'eval', found {line[:40]!r}")
    for name, value in values.items():
        if value is None and name not in (
            "accuracy",
            "examples_fingerprint",
        ):  # the one field of which null says something else
            values[name] = math.nan
        elif isinstance(value, list):
            values[name] = [math.nan if item is None else item for item in value]
    try:
        return _ADAPTERS[kind].validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MezoError(f"{where}: {field}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
