"""An engine that evaluates its share of a step, and receives the rest.

Every process poses the same questions, evaluates its own units (`mezo.parallel.work`), and receives the others'
losses; then all compute the same slopes, update and theta. A step sends one message of each process:

    status      8 bytes: the step's number, whether to stop after it, whether this process failed
    losses      8 bytes for each of its units' probes, float64
    checksum    8 bytes of its weights, every so many steps
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mezo.engines.base import Engine
from mezo.parallel.checks import Watchman, theta_checksum
from mezo.parallel.group import Apart, ProcessGroup, shares
from mezo.parallel.interrupts import Signals
from mezo.parallel.tensor_parallel import make_whole_
from mezo.parallel.work import Split, Unit, joined, units
from mezo.scoring import Example, ScoringBatch
from mezo.types import THETA, Probe, Update
from mezo.weights.weights import Weights

_FAILED = 4  # status bit; those below are of `Signals`
_BITS = 3


class RankFailed(Apart):
    """Another process of the run ended with an error of its own, which it tells."""


class ParallelEngine(Engine):
    """`inner` as one of a group: the same answers as `inner` alone gives, in a share of the time."""

    def __init__(
        self, inner: Engine, weights: Weights, group: ProcessGroup, split: Split, *, check_every: int = 0
    ):
        """split: what is shared. check_every: steps between comparisons of the weights; 0: never."""
        self.inner, self.weights, self.group = inner, weights, group
        self.split: Split = split
        self.watchman = Watchman(group, check_every)
        self.signals = Signals()
        self.steps = self.step_bytes = 0  # since the start of this process

    @property
    def counts(self) -> Any:  # type: ignore[override]
        """Of this process alone."""
        return self.inner.counts

    @property
    def bytes_a_step(self) -> float:
        """What this process has sent for its steps to share them, a step."""
        return self.step_bytes / max(1, self.steps)

    # ---------------------------------------------------------------- a step

    def prepare_each(self, batches: Sequence[Sequence[Example]]) -> list[Sequence[Example]]:
        """Those of them that this process will evaluate; one that was not foreseen is made ready when due."""
        mine = range(len(batches))
        if self.split == "data":
            mine = shares(len(batches), self.group.copies)[self.group.copy]
        return [self.inner.prepare(b) if n in mine else tuple(b) for n, b in enumerate(batches)]

    def losses(self, batch: Sequence[Example], probes: Sequence[Probe]) -> list[float]:
        return self.losses_each([batch], probes)[0]

    def losses_each(self, batches: Sequence[Sequence[Example]], probes: Sequence[Probe]) -> list[list[float]]:
        """Raises RankLost or RankFailed, before theta is written, if another process did not do its share;
        Diverged if their weights are not the same."""
        work = units(self.split, len(batches), probes, self.group.copies)
        due = self.watchman.is_due(self.steps)
        error: Exception | None = None
        mine: list[float] = []
        try:
            own = work[self.group.copy]
            for unit in joined(own) if self.inner.writes else own:
                mine += self.inner.dealt_losses(batches[unit.batch], [probes[p] for p in unit.probes])
        except Exception as caught:
            if self.group.tensor > 1:  # those who share this copy of the weights wait within a pass
                raise
            error, mine = caught, []
        room = max(sum(len(unit.probes) for unit in of_rank) for of_rank in work)
        heard = self._exchange(mine, room, error, theta_checksum(self.weights) if due else None)
        self.steps += 1
        return _assembled(work, heard, len(batches), len(probes))

    def _exchange(
        self, values: Sequence[float], room: int, error: Exception | None, checksum: int | None
    ) -> np.ndarray:
        """(copies, room) float64: everybody's values, filled up; and what else there is to tell."""
        message = np.zeros(1 + room + (checksum is not None), dtype=np.int64)
        message[0] = self.steps << _BITS | self.signals.asked | (_FAILED if error is not None else 0)
        message[1 : 1 + len(values)].view(np.float64)[:] = values
        if checksum is not None:
            message[-1] = checksum
        heard = self.group.gather(message)
        self.step_bytes += message.nbytes
        if error is not None:
            raise error
        self._judge(heard[:, 0])
        if checksum is not None:
            self.watchman.compare(heard[:, -1], self.steps)
        return heard[:: self.group.tensor, 1 : 1 + room].copy().view(np.float64)

    def _judge(self, status: np.ndarray) -> None:
        failed = np.flatnonzero(status & _FAILED)
        if len(failed):
            raise RankFailed(
                f"{self.group.name(int(failed[0]))} could not evaluate its share of the step, and says why; "
                "all stop after the last whole step"
            )
        if len(others := np.flatnonzero(status >> _BITS != self.steps)):
            raise Apart(
                f"{self.group.name(int(others[0]))} is at step {int(status[others[0]] >> _BITS)} since its start, "
                f"{self.group.name(self.group.rank)} at {self.steps}: they do not run the same command"
            )
        self.signals.agreed |= int(np.bitwise_or.reduce(status) & (_FAILED - 1))

    def apply(self, update: Update) -> None:
        self.inner.apply(update)

    @property
    def holds_theta(self) -> bool:
        return self.inner.holds_theta

    def packed_state(self) -> Any:
        return self.inner.packed_state()

    def restore(self, state: Any) -> None:
        self.inner.restore(state)

    def audit_next(self) -> None:
        self.inner.audit_next()

    # ---------------------------------------------------------------- evaluation

    def logprobs(self, batch: ScoringBatch, probes: Sequence[Probe] = (THETA,)) -> np.ndarray:
        return self.inner.logprobs(batch, probes)

    def logprobs_each(self, batches: Sequence[ScoringBatch]) -> list[np.ndarray]:
        """Whole batches are shared, so the answers have the bits that one process would give them."""
        parts = shares(len(batches), self.group.copies)
        sizes = [len(batch.query_row) for batch in batches]
        mine = [self.inner.logprobs(batches[n]).ravel() for n in parts[self.group.copy]]
        room = max(sum(sizes[n] for n in part) for part in parts)
        message = np.zeros(room, dtype=np.float64)
        if mine:
            joined = np.concatenate(mine)
            message[: len(joined)] = joined
        heard = self.group.gather(message.view(np.int64))[:: self.group.tensor].copy().view(np.float64)
        found = []
        for part, row in zip(parts, heard, strict=True):
            start = 0
            for n in part:
                found.append(row[start : start + sizes[n]].reshape(1, -1))
                start += sizes[n]
        return found

    def generate(
        self,
        examples: Sequence[Example],
        probe: Probe = THETA,
        *,
        max_new_tokens: int | None = None,
        stop: str | None = None,
    ) -> list[str]:
        """By every process, all of it: in other batches the same prompts may be continued otherwise."""
        return self.inner.generate(examples, probe, max_new_tokens=max_new_tokens, stop=stop)

    # ---------------------------------------------------------------- the end

    def tuned(self, model: Any) -> Any:
        """On the leader the whole model, on the CPU if it was cut. To be called by all, at the end."""
        if self.group.tensor > 1:
            make_whole_(model, self.group.parts)
        return self.inner.tuned(model)

    def close(self) -> None:
        self.inner.close()


def _assembled(work: list[list[Unit]], heard: np.ndarray, batches: int, probes: int) -> list[list[float]]:
    """[batch][probe]: the losses, each in its place."""
    found = np.full((batches, probes), np.nan)
    for of_rank, values in zip(work, heard, strict=True):
        start = 0
        for unit in of_rank:
            found[unit.batch, list(unit.probes)] = values[start : start + len(unit.probes)]
            start += len(unit.probes)
    return found.tolist()
