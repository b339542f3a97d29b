"""The folder of one run: which file is called what, and how each is written and read."""

import contextlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord

R = TypeVar("R", StepRecord, EvalRecord)
_KINDS: dict[type, str] = {StepRecord: "step", EvalRecord: "eval"}
_STEP, _EVAL = TypeAdapter(StepRecord), TypeAdapter(EvalRecord)
# what is being written, by `replacing`, by `tuning.save`, and by safetensors itself
_UNDER_WAY = re.compile(r"\.(?P<name>.+)\.([a-z0-9_]{8}|writing)|\.tmp[A-Za-z0-9]{6}")


class RunFolder:
    """The names inside one run's folder. Making the object touches nothing on disk.

    `create` starts a run in it, `open` reads one that is there.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"  # every setting, resolved
        self.metrics = self.path / "metrics.jsonl"  # a line a step, a line an evaluation
        self.trajectory = self.path / "trajectory.mezo"  # seeds and projected gradients: the run itself
        self.adapter = self.path / "adapter"  # LoRA or prefix weights, in peft's format
        self.model = self.path / "model"  # full-parameter tuning: the tuned model
        self.plots = self.path / "plots"
        self.card = self.path / "README.md"  # the model card
        self.profile = self.path / "profile.json"  # where a step's time went, if that was asked for
        self.trace = self.path / "trace.json.gz"  # some steps in Chrome's trace format, if asked for
        self.summary = self.path / "summary.json"  # how it was made and what it took: see `summary`
        self.probe = self.path / "probe.npz"  # a linear probe, where the run is one
        self.events = self.path / "events.jsonl"  # when it was started, resumed, stopped: see `logbook`
        self.snapshots = self.path / "snapshots"  # while it goes on: see `mezo.snapshots`
        self.logs = self.path / "logs"  # for other tools, if that was asked for: see `mezo.sinks`

    def clean(self) -> None:
        """Remove what a death in the midst of writing has left, under temporary names, and nothing through a link."""
        names = {path.name for path in self._owned()}
        for folder in (self.path, self.plots, self.snapshots):
            for path in folder.glob(".*") if folder.is_dir() and not folder.is_symlink() else ():
                found = _UNDER_WAY.fullmatch(path.name)
                if found and (folder != self.path or found["name"] in names):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _check_own(self) -> None:
        """Raises MezoError if a file or folder of the run is a link, a pipe or a device: a RUN may come from someone
        else, and what is written, removed or read there is to be inside of it."""
        self._check_kinds(self._owned())
        self._check_kinds(path for folder in (self.snapshots, self.logs) for path in folder.glob("*"))

    @staticmethod
    def _check_kinds(paths: Iterable[Path]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    what = "a link" if stat.S_ISLNK(mode) else "a pipe or a device"
                    raise MezoError(
                        f"{path}: expected a file or folder of the run's own, found {what}; put what it names in its "
                        "place (RUN itself may be a link)"
                    )

    def _owned(self) -> tuple[Path, ...]:
        journal = self.trajectory.with_name(self.trajectory.name + ".journal")
        return (
            self.config,
            self.metrics,
            self.trajectory,
            journal,
            self.adapter,
            self.model,
            self.plots,
            self.card,
            self.profile,
            self.trace,
            self.summary,
            self.probe,
            self.events,
            self.snapshots,
            self.logs,
        )

    def _held(self) -> list[Path]:
        return [path for path in self._owned() if path.exists() or path.is_symlink()]

    @classmethod
    def check(cls, path: Path | str, *, overwrite: bool = False) -> Self:
        """Whether a run can be created in `path`; changes nothing.

        Raises MezoError if it holds a run (unless `overwrite`), or files that a run would overwrite.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise MezoError(
                f"{run.path}: expected a folder for the run, found a file; choose another --output"
            )
        held = run._held()
        if held and not overwrite:
            what = "already holds a run" if run._is_run() else f"already holds {held[0].name}"
            raise MezoError(f"{run.path}: {what}; choose another --output, or add --overwrite to replace it")
        if held not in ([], [run.config]) and not run._is_run():  # config alone: a start that failed
            raise MezoError(
                f"{run.path}: holds {held[0].name} but no run of mezo, so --overwrite leaves it alone;"
                f" choose another --output"
            )
        return run

    @classmethod
    def create(cls, path: Path | str, *, overwrite: bool = False) -> Self:
        """Make the folder for a new run.

        overwrite: remove an earlier run's files from it first; files that are not a run's stay.

        Raises MezoError as `check` does, or if the folder cannot be made.
        """
        run = cls.check(path, overwrite=overwrite)
        try:
            for old in run._held():
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            run.path.mkdir(parents=True, exist_ok=True)
            run.clean()  # an earlier run's, and links that its names may be
        except OSError as error:
            raise MezoError(f"{run.path}: cannot prepare the folder for the run: {reason(error)}") from None
        return run

    @classmethod
    def begun(cls, path: Path | str) -> Self:
        """A run that was started, if only just. Raises MezoError if `path` holds no run."""
        run = cls(path)
        run._check_own()
        return run if run.config.is_file() else cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """An existing run. Raises MezoError if `path` holds no run."""
        run = cls(path)
        run._check_own()
        if not run.path.is_dir():
            raise MezoError(f"{run.path}: no such run folder; give the --output of an earlier `mezo train`")
        if not run._is_run():
            raise MezoError(
                f"{run.path}: not a run of mezo (no {run.config.name} with {run.metrics.name} or"
                f" {run.trajectory.name}); give the --output of an earlier `mezo train`"
            )
        return run

    def _is_run(self) -> bool:
        return self.config.is_file() and (self.metrics.is_file() or self.trajectory.is_file())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, renamed to it if the block ends well: never half a file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
        sync_folder(path.parent)  # the name too must outlive a loss of power
    finally:
        temporary.unlink(missing_ok=True)


def sync_files(folder: Path) -> None:
    """On return the files in the folder, and their names, survive a loss of power."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    """On return the names in the folder, as they are now, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def system_error(error: Exception) -> OSError | None:
    """The system's error that this one tells of; None if it tells of none."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))  # as libraries in Rust say it
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def reason(error: Exception) -> str:
    """Why something could not be read or written, on one line: the system's own words where it was the system."""
    told = system_error(error)
    return told.strerror if told and told.strerror else " ".join(str(error).split())


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def write_all(file: FileIO, data: bytes) -> None:
    """Write to an unbuffered file all of `data`: the system may take a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class MetricsWriter:
    """Appends to metrics.jsonl, a line a record, each handed to the system as soon as it is written.

    A last line torn by a crash is cut off first, so that what is appended stands on its own line.
    keep: bytes of the file to go on after; None: all of it.
    """

    def __init__(self, path: Path, *, keep: int | None = None) -> None:
        if path.exists():
            data = path.read_bytes()[:keep]
            os.truncate(path, data.rfind(b"\n") + 1)
        # without a buffer of our own: a write that fails must not be tried again when the file is closed
        self._file = path.open("ab", buffering=0)

    def write(self, record: StepRecord | EvalRecord) -> None:
        line = {"kind": _KINDS[type(record)], **asdict(record)}
        for name in ("profile", "losses"):  # most runs have none: no field for it on every line
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
    """What metrics.jsonl holds; null losses and gradients come back as NaN.

    A last line without its newline is a write that a crash cut short: it is dropped.
    Raises MezoError, naming the line, if anything else is not a record, or the file cannot be read.
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
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    if kind == "step":
        return _record(_STEP, values, where)
    if kind == "eval":
        return _record(_EVAL, values, where)
    raise MezoError(f"{where}: expected an object of kind 'step' or 'eval', found {line[:40]!r}")


def _record(adapter: TypeAdapter[R], values: dict[str, Any], where: str) -> R:
    for name, value in values.items():
        if value is None and name != "accuracy":  # the one field of which null says something else
            values[name] = math.nan
        elif isinstance(value, list):
            values[name] = [math.nan if item is None else item for item in value]
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise MezoError(f"{where}: {field}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def to_json(values: dict[str, Any] | list[Any]) -> str:
    """One line of JSON. Numbers that are not finite become null: JSON has no NaN."""
    return json.dumps(_finite(values), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(item) for item in value]
    return value
