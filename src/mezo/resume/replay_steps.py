"""Records -> theta: for a replay, and for a resumed run before it goes on.

A fork has the configs of the runs it came from: its header's "branches" say which holds up to which step. Steps that
are sums of noise (`sum_of`) go through memory many at a time (`mezo.weights.multi_step`), to the same bits.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mezo import estimators
from mezo.algorithm import draw_of, update_of
from mezo.build.schedule import directions_at, learning_rate, optimizer_for
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators import Estimator
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.optimizers import SGD, Optimizer
from mezo.optimizers.base import drifts, sum_of_z
from mezo.types import Draw, Update
from mezo.weights.multi_step import Sum, update_sequence_
from mezo.weights.weights import Weights

Progress = Callable[[int, int], object]  # of the steps done, and of the steps there are

_NOISE = 1 << 29  # normal numbers a thread in a pass: half a second between two words of progress
_MOST = 1024  # steps in a pass; by then the pass itself costs nothing
_FEWEST = 4  # of a model so large that its noise takes long


@dataclass(frozen=True)
class ReplayPart:
    """The steps before `end`, from the end of the part before, which were made under one config."""

    end: float  # inf: no end
    config: MeZOConfig
    estimator: Estimator
    optimizer: Optimizer

    def draw(self, step: int) -> Draw:
        """The seeds of a step."""
        return draw_of(self.config.seed, step, directions_at(self.config, step))

    def update(self, step: int, record: Sequence[float]) -> Update:
        draw = self.draw(step)
        grads = [float(g) for g in record[: self.estimator.width(len(draw.seeds))]]
        return update_of(self.estimator, draw, learning_rate(self.config, step), grads)


class Folding:
    """theta and the optimizer's state after `step` of a run's records.

    header: of the trajectory. weights: as before the first step, since layer scaling reads them; `apply` moves them.
    Where a fork changed the optimizer, the new one starts afresh.
    """

    def __init__(self, header: Mapping[str, Any], weights: Weights) -> None:
        self.weights, self.step = weights, 0
        self.parts = [
            ReplayPart(end, config, estimators.build(config, weights), optimizer_for(config))
            for end, config in configs_of(header)
        ]
        self.part = self._part_at(0)
        self.optimizer_state = self.part.optimizer.init(weights)

    def begin(self, step: int, optimizer_name: str, packed: Any) -> None:
        """Be after `step` updates, with theta there already, and an optimizer's packed state."""
        self.step, self.part = step, self._part_at(step)
        if optimizer_name == self.part.config.optimizer:
            self.optimizer_state = self.part.optimizer.unpack(self.weights, packed)
        else:
            self.optimizer_state = self.part.optimizer.init(self.weights)

    def take(
        self,
        records: np.ndarray,
        progress: Progress | None = None,
        before: Callable[[int], object] = lambda step: None,
    ) -> None:
        """Take the steps of all these records, (steps, width) float32.

        progress: called at first, and every second or so. before: called with each step's number while m is as before
        that step; theta may be ahead, since sums of noise are taken many at a time.
        """
        first = self.step
        if progress is not None:
            progress(0, len(records))
        while (at := self.step - first) < len(records):
            sums = list(self._sums(records[at : at + self._in_a_pass()]))
            for number in range(self.step, self.step + max(1, len(sums))):
                before(number)
            if sums:
                update_sequence_(self.weights, sums, rounding=self.part.optimizer.rounding)
                for _ in sums:
                    self.passed()
            else:
                self.apply(self.next(records[at]))
            if progress is not None:
                progress(self.step - first, len(records))

    def _sums(self, records: np.ndarray) -> Iterator[Sum]:
        """The next steps, as long as they are sums under one config."""
        part = self.part
        for step, record in enumerate(records, start=self.step):
            if step >= part.end:
                return
            found = sum_of(part.optimizer, part.update(step, record))
            if found is None:
                return
            yield found

    def _in_a_pass(self) -> int:
        """Steps."""
        normals = self.weights.num_elements * directions_at(self.part.config, self.step)
        return min(_MOST, max(_FEWEST, _NOISE * torch.get_num_threads() // normals))

    def draw(self, step: int) -> Draw:
        """The seeds of any step."""
        return self._part_at(step).draw(step)

    def next(self, record: Sequence[float]) -> Update:
        """The update of this step, from its record: (width,) values."""
        return self.part.update(self.step, record)

    def apply(self, update: Update) -> None:
        """Take the step."""
        self.optimizer_state = self.part.optimizer.apply_(self.weights, self.optimizer_state, update)
        self.passed()

    def passed(self) -> None:
        """The step was taken, by `apply` or by somebody else."""
        self.step += 1
        before, self.part = self.part, self._part_at(self.step)
        if self.part.config.optimizer != before.config.optimizer:
            self.optimizer_state = self.part.optimizer.init(self.weights)

    def _part_at(self, step: int) -> ReplayPart:
        return next(part for part in self.parts if step < part.end)


def sum_of(optimizer: Optimizer, update: Update) -> Sum | None:
    """A step as a sum of noise that depends on no other step, or None.

    SGD on directions without drift only: other optimizers, and m, have a state that each step reads and writes.
    """
    if type(optimizer) is not SGD or update.heading_beta is not None or drifts(update):
        return None
    return Sum(*sum_of_z(update, -update.learning_rate), decay=optimizer.decay(update))


def check_noise(path: Path, header: Mapping[str, Any], advice: str = "") -> None:
    """Raises MezoError if the trajectory is of another noise stream than this mezo's."""
    if header.get("noise") != NOISE_VERSION:
        raise MezoError(
            f"{path}: made with noise stream {header.get('noise')!r}, this mezo has {NOISE_VERSION}{advice}"
        )


def configs_of(header: Mapping[str, Any]) -> list[tuple[float, MeZOConfig]]:
    """(step before which it holds, config) in order; the last, the run's own, has no end.

    Raises MezoError if the header has no config, or its branches are not such.
    """
    branches, own = header.get("branches", []), header.get("config")
    if not isinstance(own, dict):
        raise MezoError("the trajectory's header has no config")
    try:
        found: list[tuple[float, MeZOConfig]] = [
            (int(branch["end"]), _config(branch["config"])) for branch in branches
        ]
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, MezoError):
            raise
        raise MezoError(
            "the trajectory's header has branches that are invalid: expected end and config"
        ) from None
    return [*found, (math.inf, _config(own))]


def _config(values: Mapping[str, Any]) -> MeZOConfig:
    """As recorded. Whether the model's own code may run is no matter of a file: a person says so each time."""
    return MeZOConfig.recorded(values)
