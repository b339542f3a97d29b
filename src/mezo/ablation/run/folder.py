"""The folder of a study: what was asked for, what came of it, and a lock for the time that it runs."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezo.ablation.run import results_file as results
from mezo.ablation.run.budget import Cost
from mezo.ablation.run.outcome import NAME as OUTCOME
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.parsing import parse_json
from mezo.run import RunFolder, to_json, write_text

REQUEST = "request.json"  # what a run's process is asked for
_KILLED = "killed"  # an empty file beside what a run left that was ended from outside


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a study begins with and holds to when it goes on."""

    asked: dict[str, Any]  # all that its runs depend on
    costs: dict[str, Cost]  # by a case's key; of those that could be timed
    errors: dict[str, str]  # by a case's key: why it could not
    steps: dict[str, int]  # of a run, by its case's key


class StudyFolder:
    """The names inside OUT. Making the object touches nothing on disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.results = self.path / results.NAME
        self.request = self.path / "study.json"
        self.runs = self.path / "runs"  # a folder a run, by key; KEY.failed of one that failed
        self._lock = self.path / ".lock"

    def check(self) -> None:
        """Raises MezoError if OUT cannot be a study's folder."""
        if self.path.exists() and not self.path.is_dir():
            raise MezoError(
                f"{self.path}: expected a folder for the study, found a file; choose another --output"
            )
        if self.results.exists() and not self.request.exists():
            raise MezoError(f"{self.path}: holds results but no {self.request.name}; choose another --output")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the folder. Raises MezoError if another process is at work in it.

        The system gives the lock back when this process ends, however it ends.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise MezoError(f"{self.path}: cannot make the folder for the study: {error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise MezoError(
                f"{self.path}: another `mezo ablate` is at work there; wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            os.close(lock)

    def agreed(self, asked: Mapping[str, Any]) -> Agreed | None:
        """What the study that is there holds to; None if there is nothing yet.

        Raises MezoError if it was asked for with other settings.
        """
        self.check()
        if not self.request.exists():
            return None
        try:
            found = parse_json(self.request.read_text(encoding="utf-8"))
            # a setting that an earlier version did not have was at its default
            found["asked"]["config"] = {**MeZOConfig().model_dump(mode="json"), **found["asked"]["config"]}
            costs = {key: Cost(**cost) for key, cost in found["costs"].items()}
            agreed = Agreed(found["asked"], costs, found["errors"], found["steps"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MezoError(
                f"{self.request}: not what a study wrote ({type(error).__name__}); choose another --output"
            ) from None
        if changed := differences(agreed.asked, json.loads(to_json(dict(asked)))):
            raise MezoError(
                f"{self.path}: holds a study with other settings ({'; '.join(changed)}); choose another --output,"
                " or go on with the same settings"
            )
        return agreed

    def agree(self, agreed: Agreed) -> None:
        """Note down a new study."""
        write_text(self.request, to_json(asdict(agreed)) + "\n")

    def run(self, key: str) -> Path:
        return self.runs / key

    def is_finished(self, key: str) -> bool:
        return (self.run(key) / OUTCOME).is_file()

    def take_over(self) -> None:
        """Name the runs that were finished when the study was killed. Half ones wait for `begin`."""
        for part in self.runs.glob("*.part"):
            key = part.name.split(".")[0]
            if (part / OUTCOME).is_file() and not self.is_finished(key):
                self.finish(key, part)
            elif self.is_finished(key) or not is_half(part):
                shutil.rmtree(part, ignore_errors=True)

    def begin(self, key: str, request: str) -> tuple[Path, bool]:
        """(the folder of a run under way, whether it holds the half of one) with REQUEST.json in it.

        A half run that was asked for in the same words is gone on with; any other gives way.
        """
        part, halves = self.runs / f"{key}.{os.getpid()}.part", list(self.runs.glob(f"{key}.*.part"))
        if (self.failed(key) / _KILLED).exists():
            halves.append(self.failed(key))
        found = next((half for half in halves if is_half(half) and _says(half / REQUEST, request)), None)
        for half in halves:
            if half != found and half != self.failed(key):
                shutil.rmtree(half)
        if found is None:
            part.mkdir(parents=True)
            write_text(part / REQUEST, request)
        elif found != part:
            os.replace(found, part)
            (part / _KILLED).unlink(missing_ok=True)
        return part, found is not None

    def begin_again(self, part: Path, request: str) -> None:
        """Empty the folder of a run under way, whose half cannot be gone on with."""
        shutil.rmtree(part)
        part.mkdir()
        write_text(part / REQUEST, request)

    def finish(self, key: str, part: Path) -> Path:
        """Give a finished run its name. Of its earlier failure nothing remains."""
        final = self.run(key)
        if final.exists():  # without an outcome, or it would not have been made again
            shutil.rmtree(final)
        os.replace(part, final)
        shutil.rmtree(self.failed(key), ignore_errors=True)
        return final

    def fail(self, key: str, part: Path, *, killed: bool = False) -> Path:
        """Keep what a failed run left, its log above all. killed: from outside, so that it may go on."""
        shutil.rmtree(self.failed(key), ignore_errors=True)
        if killed:
            (part / _KILLED).touch()
        os.replace(part, self.failed(key))
        return self.failed(key)

    def failed(self, key: str) -> Path:
        return self.runs / f"{key}.failed"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()


def is_half(part: Path) -> bool:
    """Whether a run was begun in a folder, so far that it can be gone on with."""
    return RunFolder(part).config.is_file()


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def differences(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 4) -> list[str]:
    """What differs, as "name: before there, now here"; the config's settings one by one."""
    flat = [{**{k: v for k, v in x.items() if k != "config"}, **x.get("config", {})} for x in (before, now)]
    names = [n for n in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(n) != flat[1].get(n)]
    found = [f"{n}: {_short(flat[0].get(n))} there, {_short(flat[1].get(n))} here" for n in names[:most]]
    return [*found, f"and {len(names) - most} more"] if len(names) > most else found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
