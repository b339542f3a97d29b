"""What can be done with a run's trajectory alone: look at it, cut it, put two together, compare two."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mezo.errors import MezoError
from mezo.resume.replay_steps import configs_of
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.trajectory import Trajectory, TrajectoryWriter, journal_of
from mezo.util.settings_text import DifferingField, differing


def file_of(run: Path | str) -> Path:
    """The trajectory file of a RUN folder, or the file itself. Raises MezoError if it does not exist."""
    path = Path(run)
    if path.is_file():
        return path
    found = RunFolder.begun(path).trajectory
    if not found.is_file():
        raise MezoError(f"{path}: has no {found.name}, so no step was recorded")
    return found


_SHOWN = ("dtype", "tuning", "estimator", "optimizer", "learning_rate", "epsilon", "seed")


def facts(run: Path | str) -> dict[str, Any]:
    """What `mezo trajectory show` tells, as JSON values. Raises MezoError if the file is damaged.

    sizes in bytes; gradient statistics over all finite values of all records, None without any.
    """
    path = file_of(run)
    found = trajectory.read(path)
    header = found.header
    config = configs_of(header)[-1][1]
    return {
        "file": str(path),
        "steps": len(found),
        "steps_planned": config.num_steps,
        "values_per_step": found.records.shape[1],
        "model": config.model,
        "base_fingerprint": header.get("base_fingerprint"),
        **{name: getattr(config, name) for name in _SHOWN},
        "noise": header.get("noise"),
        "format": header["format"],
        "checksum": trajectory.checksum(found.records),
        "file_bytes": path.stat().st_size,
        "journal_bytes": journal_of(path).stat().st_size if journal_of(path).exists() else 0,
        "torn_bytes": found.dropped_bytes,
        "parent": header.get("parent"),
        "gradients": _statistics(found.records),
    }


def _statistics(records: np.ndarray) -> dict[str, float | int | None]:
    values = records.astype(np.float64).ravel()
    finite = values[np.isfinite(values)]
    sizes = np.abs(finite)
    has_any = len(finite) > 0
    return {
        "mean": float(finite.mean()) if has_any else None,
        "std": float(finite.std()) if has_any else None,
        "median_size": float(np.median(sizes)) if has_any else None,
        "largest_size": float(sizes.max()) if has_any else None,
        "zero": int((finite == 0).sum()),
        "not_finite": len(values) - len(finite),
    }


def cut(run: Path | str, steps: int, output: Path | str) -> Path:
    """Write the first `steps` steps of a run as a trajectory file of their own.

    The header stays: learning rates still follow the whole run's length. Raises MezoError if the run has fewer steps,
    or `output` exists.
    """
    found = trajectory.read(file_of(run))
    if not 0 <= steps <= len(found):
        raise MezoError(
            f"{run}: has {len(found)} steps: cannot be cut to {steps}; give --steps 0 to {len(found)}"
        )
    return write(Path(output), found.header, found.records[:steps])


def merge(first: Path | str, second: Path | str, output: Path | str) -> Path:
    """Write the longer of two trajectories of one run, or of a run and its fork, after comparing them.

    They belong together if their headers are the same and they agree on every step that both have, or if `second` is
    a fork of `first`. Raises MezoError, saying where they differ.
    """
    a, b = trajectory.read(file_of(first)), trajectory.read(file_of(second))
    fork = _forked_at(a, b)
    if a.header != b.header and fork is None:
        names = ", ".join(row.name for row in differing(a.header, b.header)[:4])
        raise MezoError(
            f"{first} and {second} are not of one run: their headers differ in {names}, and the second was not "
            f"forked off the first (see: mezo trajectory diff)"
        )
    shared = min(len(a), len(b)) if fork is None else fork
    at = _first_difference(a.records[:shared], b.records[:shared])
    if at is not None:
        raise MezoError(
            f"{first} and {second} differ from step {at} on: only records that agree can be merged"
        )
    longer = b if fork is not None or len(b) >= len(a) else a
    return write(Path(output), longer.header, longer.records)


def _forked_at(parent: Trajectory, child: Trajectory) -> int | None:
    """The steps that `child` took over from `parent`; None if it is no fork of it."""
    record = child.header.get("parent")
    if not isinstance(record, dict) or not isinstance(step := record.get("step"), int):
        return None
    if not 0 < step <= min(len(parent), len(child)):
        return None
    known = trajectory.checksum(parent.records[:step]) == record.get("trajectory")
    return step if known else None


def write(path: Path, header: dict[str, Any], records: np.ndarray) -> Path:
    """A sealed trajectory file, whole or not at all. Raises MezoError if it exists or cannot be written."""
    if path.exists() or journal_of(path).exists():
        raise MezoError(f"{path} exists already: a trajectory is never overwritten; choose another --output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            TrajectoryWriter.resume(temporary, header, records).close()
            os.replace(temporary, path)
    except OSError as error:
        raise MezoError(f"{path}: cannot write the trajectory: {error.strerror}") from None
    return path


@dataclass(frozen=True)
class TrajectoryDifference:
    """header: the fields that differ. first_step: from which on records differ, or only one has them; None:
    they are the same."""

    header: list[DifferingField]
    first_step: int | None
    steps: tuple[int, int]

    @property
    def none(self) -> bool:
        return not self.header and self.first_step is None


def difference(first: Path | str, second: Path | str) -> TrajectoryDifference:
    """Compare two trajectories. Raises MezoError if one cannot be read."""
    a, b = trajectory.read(file_of(first)), trajectory.read(file_of(second))
    at = _first_difference(a.records, b.records)
    if at is None and len(a) != len(b):
        at = min(len(a), len(b))
    return TrajectoryDifference(differing(a.header, b.header), at, (len(a), len(b)))


def _first_difference(a: np.ndarray, b: np.ndarray) -> int | None:
    """By bits, since two NaN are the same record and 0 and -0 are not."""
    steps = min(len(a), len(b))
    if a.shape[1] != b.shape[1]:
        return 0 if steps else None
    unlike = (a[:steps].view(np.uint32) != b[:steps].view(np.uint32)).any(axis=1)
    return int(unlike.argmax()) if unlike.any() else None
