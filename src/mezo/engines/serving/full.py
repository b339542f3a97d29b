"""All parameters on a serving engine: theta lives in its workers, and no weights travel.

The workers put the model at a probe, and move it, from seeds and scales (`mezo.engines.workers.group`). This process
keeps only the updates, which make the tuned model from the checkpoint at the end, as a replay does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mezo.engines.serving.backend import Backend
from mezo.engines.serving.engine import Placement, ServedPoint
from mezo.engines.workers.group import Workers
from mezo.optimizers import Optimizer
from mezo.types import THETA, Probe, Update
from mezo.util.profiling import span
from mezo.weights.weights import Weights


class InWorkers(Placement):
    def __init__(
        self,
        backend: Backend,
        workers: Workers,
        optimizer: Optimizer,
        checkpoint: Callable[[], tuple[Any, Weights]],
        note: Callable[[str], None],
    ):
        """checkpoint: loads the model that the run began with, made ready for tuning, and its weights.

        note: called with how far a walk had strayed when theta was made again.
        """
        self.backend, self.workers, self.optimizer = backend, workers, optimizer
        self.checkpoint, self.note = checkpoint, note
        self.updates: list[Update] = []
        self._at: Probe | None = THETA  # where the workers are; None: not known

    def visit(self, probes: Sequence[Probe]) -> Iterator[Sequence[ServedPoint]]:
        for probe in probes:
            yield [self._go(probe)]

    def apply(self, update: Update) -> None:
        self._at = None
        walked = self.workers.apply(update)
        self.updates.append(update)
        self._arrived(THETA)
        if walked is not None:
            self.note(
                f"the weights in the engine had strayed by {walked.relative:.1e} of their size in {walked.steps} steps "
                f"(at most {walked.largest:.1e} in one element), and are exact again"
            )

    def finished(self, model: Any) -> Any:
        tuned, weights = self.checkpoint()
        state = self.optimizer.init(weights)
        for update in self.updates:
            state = self.optimizer.apply_(weights, state, update)
        return tuned

    def leave(self, name: str) -> None:
        self._at = None
        self.workers.release()
        self.backend.flush()

    def _go(self, probe: Probe) -> ServedPoint:
        probe = probe if probe.scale else THETA
        if self._at == probe:
            return ServedPoint(None, fresh=False)
        self._at = None
        with span("noise"):
            self.workers.go(probe)
        self._arrived(probe)
        return ServedPoint(None, fresh=True)

    def _arrived(self, probe: Probe) -> None:
        """What is cached is of other weights, whatever moved them."""
        self.backend.flush()
        self._at = probe
