"""The folder of one run: which file is called what, and how each is written and read."""

import contextlib
import re
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from mezo.errors import MezoError
from mezo.util.atomic_files import reason
from mezo.util.foreign import check_folder

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
        # label words' rows that it starts from, if it was asked for
        self.start = self.path / "start.safetensors"
        self.reference = self.path / "reference.safetensors"  # the start's log-probabilities, for dpo
        self.journal = self.path / "trajectory.mezo.journal"  # its last records, until they are sealed
        self.adapter = self.path / "adapter"  # LoRA or prefix weights, in peft's format
        self.model = self.path / "model"  # full-parameter tuning: the tuned model
        self.plots = self.path / "plots"
        self.card = self.path / "README.md"  # the model card
        self.profile = self.path / "profile.json"  # where a step's time went, if that was asked for
        self.trace = self.path / "trace.json.gz"  # some steps in Chrome's trace format, if asked for
        self.summary = self.path / "summary.json"  # how it was made and what it took: see `mezo.runs.summary`
        self.probe = self.path / "probe.npz"  # a linear probe, where the run is one
        self.samples = self.path / "samples.jsonl"  # outputs with their rewards: see `mezo.runs.samples`
        self.samples_page = self.path / "samples.html"
        self.events = self.path / "events.jsonl"  # starts, resumptions, stops: `mezo.runs.event_log`
        self.snapshots = self.path / "snapshots"  # while it goes on: see `mezo.runs.snapshots`
        self.logs = self.path / "logs"  # for other tools, if that was asked for: see `mezo.sinks`

    def clean(self) -> None:
        """Remove temporary files left by a crash while writing, and nothing through a link."""
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

    def _owned(self) -> list[Path]:
        return [path for name, path in vars(self).items() if name != "path"]

    def _held(self) -> list[Path]:
        return [path for path in self._owned() if path.exists() or path.is_symlink()]

    @classmethod
    def check(cls, path: Path | str, *, overwrite: bool = False) -> Self:
        """Whether a run can be created in `path`; changes nothing.

        Raises MezoError if it holds a run (unless `overwrite`), or files that a run would overwrite.
        """
        run = cls(path)
        check_folder(run.path, "run")
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
