"""Snapshots of a run under way, from which a resumed run begins, so that little has to be replayed.

    RUN/snapshots/step-00001000.safetensors = the tuned tensors (of an adapter run, the adapter), the
        optimizer's state, the running mean of the gradient, the estimator's state, and a checksum of all

A snapshot is written under a temporary name, synced, renamed, and the folder synced; then the third newest is
removed. So once there was a snapshot, a whole one is always there, and a crash leaves a temporary file or a third
snapshot.

The checksum covers names, shapes, dtypes and every byte. A snapshot that does not fit it is skipped for the one
before; with none left the run is replayed from the base model, to the same weights.
"""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mezo.errors import MezoError
from mezo.util.atomic_files import replacing
from mezo.util.interrupts import in_native_code
from mezo.util.packing import pack, unpack
from mezo.util.parsing import parse_json
from mezo.weights.fingerprint import fingerprint
from mezo.weights.weights import Weights

FORMAT_VERSION = 1
KEPT = 2
_THETA = "theta/"


@dataclass(frozen=True)
class State:
    """Where a run was after `step` updates, the tuned tensors left out."""

    step: int
    trajectory: str  # checksum of the records of these steps: which run this is of
    estimator: Any  # the estimator's state
    optimizer_name: str
    optimizer: Any  # packed by the optimizer
    heading: dict[str, torch.Tensor] | None  # packed: m by the tensors' names


def write(folder: Path, weights: Weights, state: State) -> Path:
    """Write one, and remove all but the newest two. Raises OSError or SafetensorError if it cannot be written."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{state.step:08d}.safetensors"
    with replacing(path) as temporary:
        _save(temporary, weights, state)
    for old in list(_paths(folder))[KEPT:]:
        old.unlink()
    return path


def _save(path: Path, weights: Weights, state: State) -> None:
    tensors = {_THETA + t.name: t.tensor.detach() for t in weights.tunables}
    values = {
        "format": FORMAT_VERSION,
        "step": state.step,
        "trajectory": state.trajectory,
        "estimator": pack(state.estimator, tensors, "state/"),
        "optimizer_name": state.optimizer_name,
        "optimizer": pack(state.optimizer, tensors, "state/"),
        "heading": pack(state.heading, tensors, "state/"),
    }
    text = json.dumps(values)
    metadata = {"mezo": text, "checksum": _checksum(text, tensors.items())}
    save_file(tensors, path, metadata=metadata)


class Snapshot:
    """A snapshot on disk, whose checksum fitted when it was opened. Its tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        """Raises MezoError if it cannot be read or is damaged."""
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
            metadata = self._file.metadata() or {}
            self._names = frozenset(self._file.keys())
            text = metadata["mezo"]
            found = _checksum(text, ((name, self._read(name)) for name in self._names))
            if found != metadata["checksum"]:
                raise MezoError(f"{path}: damaged: its checksum is {found}, expected {metadata['checksum']}")
            self._values = parse_json(text)
            if self._values["format"] != FORMAT_VERSION:
                raise MezoError(f"{path}: expected snapshot format 1, found {self._values['format']!r}")
            self.step, self.trajectory = int(self._values["step"]), str(self._values["trajectory"])
            self.optimizer_name = str(self._values["optimizer_name"])
        except (
            OSError,
            SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            struct.error,
        ) as error:
            if isinstance(error, MezoError):
                raise
            raise MezoError(f"{path}: not a readable snapshot: {' '.join(str(error).split())}") from None

    def _read(self, name: str) -> torch.Tensor:
        with in_native_code():
            return self._file.get_tensor(name)

    def restore_(self, weights: Weights) -> State:
        """Write the tuned tensors and m into `weights`; the rest. Raises MezoError if they are of other shapes."""
        for t in weights.tunables:
            name = _THETA + t.name
            shape = self._file.get_slice(name).get_shape() if name in self._names else None
            if shape is None or tuple(shape) != tuple(t.tensor.shape):
                raise MezoError(
                    f"{self.path}: expected {t.name} of shape {tuple(t.tensor.shape)}, found "
                    f"{'none' if shape is None else tuple(shape)}: it is of another model"
                )
        for t in weights.tunables:
            t.tensor.detach().copy_(self._read(_THETA + t.name))
        try:
            estimator, optimizer, heading = (
                unpack(self._values[name], self) for name in ("estimator", "optimizer", "heading")
            )
            weights.heading.unpack(heading)
        except (KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            # sealed with a checksum that fits, and not by `write`
            raise MezoError(
                f"{self.path}: holds no state of a run ({type(error).__name__}: {error})"
            ) from None
        return State(self.step, self.trajectory, estimator, self.optimizer_name, optimizer, heading)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)


def newest(
    folder: Path, fits: Callable[[Snapshot], bool], note: Callable[[str], None] = lambda text: None
) -> Snapshot | None:
    """The newest snapshot that is sound and fits; None without one. note: called for each damaged one."""
    for path in _paths(folder):
        try:
            snapshot = Snapshot(path)
        except MezoError as error:
            note(f"warning: {error}; going back to what there was before it")
            continue
        if fits(snapshot):
            return snapshot
    return None


def drop(folder: Path, *, after: int) -> None:
    """Remove the snapshots of later steps than `after`: of steps that are going to be done again."""
    for path in _paths(folder):
        if int(path.stem.removeprefix("step-")) > after:
            path.unlink()


def _paths(folder: Path) -> Iterator[Path]:
    """Newest first."""
    found = [p for p in folder.glob("step-*.safetensors") if p.stem.removeprefix("step-").isdecimal()]
    yield from sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def _checksum(text: str, tensors: Any) -> str:
    return blake2b(f"{text}\n{fingerprint(tensors)}".encode(), digest_size=16).hexdigest()
