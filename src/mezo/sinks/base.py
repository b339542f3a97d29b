"""What a sink is: somewhere else that the numbers of a run are shown."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple


class SinkPoint(NamedTuple):
    """Numbers of one moment. A step's are those before its update, as an evaluation's are."""

    step: int  # updates done
    time: float  # seconds since 1970
    numbers: Mapping[str, float]  # by names such as train/loss; they may be nan


@dataclass(frozen=True, slots=True)
class Begun:
    """What a sink receives when its run begins or goes on."""

    run: Path  # the RUN folder
    logs: Path  # RUN/logs
    first_step: int
    num_steps: int
    settings: Mapping[str, Any]  # without secrets
    id: str | None  # as `open` gave it when the run began; None: it begins now


class Sink(ABC):
    """All methods are called in one thread of their own, so that a slow or broken sink holds up no step.

    They may raise anything: it ends the sink, not the run.
    """

    every: ClassVar[float]  # seconds from one `write` to the next, at least

    @abstractmethod
    def open(self, begun: Begun) -> str | None:
        """The id under which a resumed run finds its log again; None: it needs none."""

    @abstractmethod
    def write(self, points: Sequence[SinkPoint]) -> None:
        """What has come since the last call, in order; at least one."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """The run is over; failed: by an error."""
