"""The sinks by name, and a run's observer that feeds them. A new one is one file and one line here."""

import contextlib
import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.runs.folder import RunFolder
from mezo.sinks import run_ids
from mezo.sinks.background import Background
from mezo.sinks.base import Begun, Sink
from mezo.sinks.numbers import without_secrets
from mezo.sinks.prometheus import MetricsFile
from mezo.util.registry import look_up


class Kind(NamedTuple):
    package: str  # that is imported; the extra of mezo that brings it is called as the sink
    module: str
    name: str  # of the class in it

    def make(self) -> Sink:
        return getattr(import_module(self.module), self.name)()


SINKS: dict[str, Kind] = {
    "tensorboard": Kind("tensorboard", "mezo.sinks.tensorboard", "TensorBoard"),
    "wandb": Kind("wandb", "mezo.sinks.wandb", "WeightsAndBiases"),
    "mlflow": Kind("mlflow", "mezo.sinks.mlflow", "MLflow"),
}


def check(names: Sequence[str], metrics_file: Path | None = None) -> None:
    """Raises MezoError for a name that is invalid, a package that is not installed, a file that cannot be one."""
    for name in names:
        kind = look_up(SINKS, name, "log")
        if not _installed(kind):
            raise MezoError(
                f"--log {name} needs the package {kind.package}, which is not installed: pip install 'mezo-llm[{name}]'"
            )
    if metrics_file is not None and (metrics_file.is_dir() or not metrics_file.parent.is_dir()):
        raise MezoError(
            f"--metrics-file {metrics_file}: expected a file in a folder that is there, found "
            + ("a folder" if metrics_file.is_dir() else "no such folder")
        )


def names_for(given: Sequence[str], resumed: Path | None, note: Callable[[str], None]) -> tuple[str, ...]:
    """What a run is logged to: what was given; nothing given, what the resumed run was logged to."""
    if given or resumed is None:
        return tuple(dict.fromkeys(given))
    before = [name for name in run_ids.read(RunFolder(resumed).logs) if name in SINKS]
    for name in before:
        if not _installed(SINKS[name]):
            note(f"warning: this run was logged to {name}, which is not installed here: it is not any more")
    return tuple(name for name in before if _installed(SINKS[name]))


def _installed(kind: Kind) -> bool:
    return importlib.util.find_spec(kind.package) is not None


@contextlib.contextmanager
def logging_to(
    names: Sequence[str],
    *,
    run: Path | str,
    config: MeZOConfig,
    metrics_file: Path | str | None = None,
    note: Callable[[str], None] = print,
) -> Iterator[Observer]:
    """An observer for MeZOTrainer that logs to these sinks. A failure is reported to `note`, once.

    run: the RUN folder; its logs/ has files of the logs, and the ids under which a resumed run continues them.
    metrics_file: for Prometheus. Raises MezoError, before anything is opened, as `check` does.
    """
    file = None if metrics_file is None else Path(metrics_file)
    check(names, file)
    folder, lock = RunFolder(run), threading.Lock()
    settings = without_secrets(config.model_dump(mode="json"))

    def beginning(name: str, make: Callable[[], Sink]) -> Callable[[int, int], Sink]:
        def begin(first_step: int, num_steps: int) -> Sink:
            sink, id = make(), run_ids.read(folder.logs).get(name)
            now = sink.open(Begun(folder.path, folder.logs, first_step, num_steps, settings, id))
            with lock:  # the sinks open side by side
                if now is not None and now != id:
                    run_ids.keep(folder.logs, name, now)
            return sink

        return begin

    outlets = [Background(f"--log {name}", beginning(name, SINKS[name].make), note) for name in names]
    if file is not None:
        outlets.append(Background("--metrics-file", beginning("", lambda: MetricsFile(file)), note))
    failed = True
    try:
        yield Several(*outlets)
        failed = False
    finally:
        for outlet in outlets:
            outlet.close(failed=failed)


class Several(Observer):
    """Tells several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        for event in (name for name in vars(Observer) if name.startswith("on_")):
            setattr(self, event, partial(_tell, observers, event))


def _tell(observers: Sequence[Observer], event: str, *given: object) -> None:
    for observer in observers:
        getattr(observer, event)(*given)
