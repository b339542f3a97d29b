"""Where the exact theta is while a worker of a serving engine computes with theta + eps z.

An engine's weights have fixed addresses, so a probe is written over them.

    device, host   a copy of theta, beside the model or in host memory: theta + eps z is rounded once, and theta comes
                   back bit for bit
    walk           the paper's walk, +eps, -2 eps, +eps, on the only copy in memory. It drifts (float32: 6e-7 of theta
                   after 100 steps, bfloat16: 4e-2), so every few steps theta is made again from a copy on disk and
                   the updates since, and the drift is reported
    alone          on weights that no probe is written over, as the probes are adapters of the engine's
"""

import abc
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mezo.engines.workers.shard_map import Pieces
from mezo.errors import MezoError
from mezo.optimizers import Optimizer
from mezo.optimizers.history import History
from mezo.types import THETA, Probe, Update

Keep = Literal["auto", "device", "host", "walk", "alone"]


@dataclass(frozen=True)
class WalkError:
    """How far a walk had strayed from theta when theta was made again."""

    steps: int  # since it was last made
    largest: float  # of |walk - theta|
    squares: float  # sum of (walk - theta)^2; what workers hold alike counts for each of them
    theta_squares: float

    @property
    def relative(self) -> float:
        """||walk - theta|| / ||theta||."""
        return math.sqrt(self.squares / self.theta_squares) if self.theta_squares else 0.0


class ThetaBackup(abc.ABC):
    """Puts an engine's model at probes, and moves theta."""

    name: str

    @abc.abstractmethod
    def go(self, live: Pieces, probe: Probe) -> None:
        """live, the engine's own memory, <- the probe's point."""

    @abc.abstractmethod
    def update(self, live: Pieces, update: Update) -> WalkError | None:
        """theta <- what the optimizer makes of it; live <- theta."""

    @abc.abstractmethod
    def restore(self, live: Pieces) -> WalkError | None:
        """live <- theta, exactly."""


class ThetaSnapshot(ThetaBackup):
    """theta kept once more in memory."""

    def __init__(self, live: Pieces, optimizer: Optimizer, name: Literal["device", "host"]):
        self.name, self.optimizer = name, optimizer
        kept = [p.tensor.detach() for p in live.pieces]
        self.theta = live.copies([t.to("cpu" if name == "host" else t.device, copy=True) for t in kept])
        here = {p.tensor.device for p in self.theta.pieces}
        self.beside = here == {p.tensor.device for p in live.pieces}
        self.state: Any = optimizer.init(self.theta if self.beside else live)
        self.heading = (self.theta if self.beside else live).heading

    def go(self, live: Pieces, probe: Probe) -> None:
        if not self.beside:
            live.heading = self.heading
            live.copy_(self.theta)
            if probe.scale:
                live.add_noise_(probe)
        elif not probe.scale:
            live.copy_(self.theta)
        elif probe.scaling is None and not probe.drift:
            self.theta.write_all(probe.seed, probe.scale, live)
        else:
            for n, piece in enumerate(live.pieces):
                self.theta.write(n, probe, piece.flat())

    def update(self, live: Pieces, update: Update) -> None:
        if self.beside:
            self.state = self.optimizer.apply_(self.theta, self.state, update)
            live.copy_(self.theta)
        else:
            live.heading = self.heading
            live.copy_(self.theta)
            self.state = self.optimizer.apply_(live, self.state, update)
            self.theta.copy_(live)

    def restore(self, live: Pieces) -> None:
        live.copy_(self.theta)


class Walk(ThetaBackup):
    """theta in memory once; exact on disk as of `every` steps ago at most, in a file without a name."""

    name = "walk"

    def __init__(self, live: Pieces, optimizer: Optimizer, every: int):
        self.optimizer, self.every = optimizer, every
        self.state = optimizer.init(live)
        if not (self.state is None or isinstance(self.state, History)):
            raise MezoError(
                f"optimizer {type(optimizer).__name__} keeps moments, which a walk cannot make again; choose sgd or "
                "momentum-rebuilt, or keep theta on the host"
            )
        self.exact = live.copies(list(_on_disk(live)))
        self.exact_state = self.state
        self.at = THETA
        self.since: list[Update] = []

    def go(self, live: Pieces, probe: Probe) -> None:
        if probe.drift:
            raise MezoError(
                "a walk cannot follow directions that drift; keep theta on the host, or take another estimator"
            )
        factors = [p.scaling.factors if p.scaling else None for p in (self.at, probe)]
        same_line = self.at.seed == probe.seed and factors[0] == factors[1]
        if self.at.scale and probe.scale and same_line:
            self._move(live, probe, probe.scale - self.at.scale)
        else:
            self._move(live, self.at, -self.at.scale)
            self.at = THETA
            self._move(live, probe, probe.scale)
        self.at = probe

    @staticmethod
    def _move(live: Pieces, probe: Probe, scale: float) -> None:
        if scale:
            live.add_noise_(replace(probe, scale=scale))

    def update(self, live: Pieces, update: Update) -> WalkError | None:
        self.go(live, THETA)
        self.state = self.optimizer.apply_(live, self.state, update)
        self.since.append(update)
        return self.restore(live) if len(self.since) >= self.every else None

    def restore(self, live: Pieces) -> WalkError | None:
        steps = len(self.since)
        self.go(live, THETA)
        for update in self.since:
            self.exact_state = self.optimizer.apply_(self.exact, self.exact_state, update)
        self.since.clear()
        largest = squares = theta_squares = 0.0
        for mine, theta in zip(live.pieces, self.exact.pieces, strict=True):
            true = theta.flat().to(mine.tensor.device)
            apart = (mine.flat().double() - true.double()).abs()
            largest = max(largest, float(apart.max()))
            squares += float(apart.square().sum())
            theta_squares += float(true.double().square().sum())
            mine.flat().copy_(true)
        return WalkError(steps, largest, squares, theta_squares)


class ThetaAlone(ThetaBackup):
    """theta in the engine's own weights and nowhere else: they are never anywhere but at theta."""

    name = "alone"

    def __init__(self, live: Pieces, optimizer: Optimizer):
        self.optimizer, self.state = optimizer, optimizer.init(live)

    def go(self, live: Pieces, probe: Probe) -> None:
        if probe.scale:
            raise MezoError(
                "a worker that keeps no other copy of theta was asked to leave it; keep theta on the host or the device"
            )

    def update(self, live: Pieces, update: Update) -> None:
        self.state = self.optimizer.apply_(live, self.state, update)

    def restore(self, live: Pieces) -> None:
        """It is there."""


def keeper_for(keep: Keep, live: Pieces, optimizer: Optimizer, *, every: int, workers: int) -> ThetaBackup:
    """The backup by name; "auto": beside the model if it fits there, else on the host, else a walk.

    workers: that share this host's memory.
    """
    if keep == "auto":
        keep = _choose(live, workers)
    if keep == "walk":
        return Walk(live, optimizer, every)
    if keep == "alone":
        return ThetaAlone(live, optimizer)
    if keep in ("device", "host"):
        on_host = all(p.tensor.device.type == "cpu" for p in live.pieces)
        return ThetaSnapshot(live, optimizer, "host" if on_host else keep)
    raise MezoError(f"unknown way to keep theta {keep!r}; choices: auto, device, host, walk, alone")


def _choose(live: Pieces, workers: int) -> Keep:
    """A tenth is left free, for what the engine and its host need besides."""
    need = size_of(live)
    devices = {p.tensor.device for p in live.pieces if p.tensor.is_cuda}
    if devices and all(need * 1.1 < torch.cuda.mem_get_info(device)[0] for device in devices):
        return "device"
    free = available_bytes()
    return "host" if free is None or need * workers * 1.1 < free else "walk"


def size_of(pieces: Pieces) -> int:
    return sum(p.tensor.numel() * p.tensor.element_size() for p in pieces.pieces)


def available_bytes() -> int | None:
    """Memory of the host, or of this container, that is still to be had (Linux); None: not known."""
    found: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        found.append(max(0, int(text) - int(used.read_text())))
    return min(found, default=None)


def _on_disk(live: Pieces) -> Iterator[torch.Tensor]:
    """The pieces' values, each mapped from a file that is gone with the process."""
    place = Path(tempfile.gettempdir())
    need, free = size_of(live), shutil.disk_usage(place).free
    if need > free:
        raise MezoError(
            f"{place}: {need} bytes are needed to keep theta on disk, {free} are free; set TMPDIR to another disk"
        )
    for piece in live.pieces:
        handle, name = tempfile.mkstemp(prefix="mezo-theta-", dir=place)
        try:
            os.close(handle)
            count = math.prod(piece.tensor.shape)
            kept = torch.from_file(name, shared=True, size=count, dtype=piece.tensor.dtype)
        finally:
            os.unlink(name)
        yield kept.view(piece.tensor.shape).copy_(piece.tensor)
