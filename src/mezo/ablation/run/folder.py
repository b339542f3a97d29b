"""The folder of a study: its request, its runs, and a lock while it runs."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezo.ablation.run.cases import Cost
from mezo.ablation.run.measures import OUTCOME
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.locking import RunLock
from mezo.runs.metrics_file import Metrics, read_metrics
from mezo.util.atomic_files import write_text
from mezo.util.foreign import check_folder
from mezo.util.json_text import to_json
from mezo.util.parsing import parse_json
from mezo.util.settings_text import brief, differing

RESULTS = "results.jsonl"
REQUEST = "request.json"  # of a run's process
_SHOWN = 4  # settings that differ, in a message
_KILLED = "killed"  # an empty file in the folder of a run that was ended from outside


@dataclass(frozen=True, slots=True)
class Agreed:
    """What is fixed when a study begins, and holds when it continues."""

    asked: dict[str, Any]  # all that its runs depend on
    costs: dict[str, Cost]  # by a case's key; of those that were timed
    errors: dict[str, str]  # by a case's key: why it could not be timed
    steps: dict[str, int]  # of a run, by its case's key


class StudyFolder:
    """The paths inside OUT. Constructing the object touches nothing on disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.results = self.path / RESULTS
        self.request = self.path / "study.json"
        self.runs = self.path / "runs"  # a folder a run, by key; KEY.failed of one that failed

    def run(self, key: str) -> Path:
        return self.runs / key

    def failed(self, key: str) -> Path:
        return self.runs / f"{key}.failed"

    def is_finished(self, key: str) -> bool:
        return (self.run(key) / OUTCOME).is_file()

    def metrics(self, key: str) -> Metrics:
        """Of a finished run."""
        return read_metrics(RunFolder(self.run(key)).metrics)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclusive use of the folder. Raises MezoError if another process works in it."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MezoError(f"{self.path}: cannot make the folder for the study: {error}") from None
        with RunLock.take(self.path):
            yield

    def agreed(self, asked: Mapping[str, Any]) -> Agreed | None:
        """What the study in the folder has fixed; None if there is no study.

        Raises MezoError if OUT cannot be a study's folder, or the study there has other settings.
        """
        check_folder(self.path, "study")
        if not self.request.exists():
            if not self.results.exists():
                return None
            raise MezoError(f"{self.path}: holds results but no {self.request.name}; choose another --output")
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
        if rows := differing(agreed.asked, json.loads(to_json(dict(asked)))):
            changed = [f"{name}: {brief(a)} there, {brief(b)} here" for name, a, b in rows[:_SHOWN]]
            changed += [f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
            raise MezoError(
                f"{self.path}: holds a study with other settings ({'; '.join(changed)}); choose another --output,"
                " or continue with the same settings"
            )
        return agreed

    def agree(self, agreed: Agreed) -> None:
        """Write down a new study."""
        write_text(self.request, to_json(asdict(agreed)) + "\n")

    def take_over(self) -> None:
        """Name the runs that were finished when the study was killed. Unfinished ones stay for `begin`."""
        for part in self.runs.glob("*.part"):
            key = part.name.split(".")[0]
            if (part / OUTCOME).is_file() and not self.is_finished(key):
                self.finish(key, part)
            elif self.is_finished(key) or not is_resumable(part):
                shutil.rmtree(part, ignore_errors=True)

    def begin(self, key: str, request: str) -> tuple[Path, bool]:
        """(the folder of a run in progress, whether it resumes an unfinished run) with REQUEST.json in it.

        An unfinished run with the same request is resumed; any other is removed.
        """
        part, unfinished = self.runs / f"{key}.{os.getpid()}.part", list(self.runs.glob(f"{key}.*.part"))
        if (self.failed(key) / _KILLED).exists():
            unfinished.append(self.failed(key))
        asked = [p for p in unfinished if is_resumable(p) and (p / REQUEST).is_file()]
        found = next((p for p in asked if (p / REQUEST).read_bytes() == request.encode()), None)
        for other in unfinished:
            if other not in (found, self.failed(key)):
                shutil.rmtree(other)
        if found is None:
            part.mkdir(parents=True)
            write_text(part / REQUEST, request)
        elif found != part:
            os.replace(found, part)
            (part / _KILLED).unlink(missing_ok=True)
        return part, found is not None

    def finish(self, key: str, part: Path) -> None:
        """Give a finished run its name, and remove its earlier failure."""
        if self.run(key).exists():  # without an outcome, or the run would not have been made again
            shutil.rmtree(self.run(key))
        os.replace(part, self.run(key))
        shutil.rmtree(self.failed(key), ignore_errors=True)

    def fail(self, key: str, part: Path, *, killed: bool = False) -> None:
        """Keep the folder of a failed run, with its log. killed: from outside, so that it can be resumed."""
        shutil.rmtree(self.failed(key), ignore_errors=True)
        if killed:
            (part / _KILLED).touch()
        os.replace(part, self.failed(key))


def is_resumable(part: Path) -> bool:
    """Whether a run in this folder has begun so far that it can be resumed."""
    return RunFolder(part).config.is_file()
