"""An engine for a loss that somebody else computes: `losses` calls a closure at each probe."""

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from mezo.engines.closures.torch_state import Buffers, RandomState
from mezo.engines.in_place.modes import Memory, walk_for
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.raw_reads import RawReads
from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.optimizers import Optimizer
from mezo.types import Probe, Update
from mezo.weights.weights import Weights

Closure = Callable[[], Any]  # the loss: a number, or a tensor of one element


class ClosureEngine:
    """theta is in this process; a "batch" is a closure that computes its loss from scratch.

    Where Python sees the module's forward, its modules get perturbed tensors and theta is not written. A tensor that
    is read outside the module that owns it holds the probe itself from then on. The first probe is evaluated again
    with every tensor written, which shows reads that nobody can watch (a NumPy view, a C++ extension).
    """

    def __init__(
        self, weights: Weights, optimizer: Optimizer, module: nn.Module | None, memory: Memory = "materialize"
    ) -> None:
        self.weights, self.optimizer = weights, optimizer
        self.state = optimizer.init(weights)
        follows = module is not None and memory == "materialize" and not _is_compiled(module)
        self._probing = Probing(module, weights) if module is not None and follows else None
        self._in_place = walk_for(memory, weights)
        self._buffers = Buffers(module)
        self._audited = self._probing is None
        self._kinds = [(t.tensor.dtype, t.tensor.device) for t in weights.tunables]

    def losses_each(self, batches: Sequence[Closure], probes: Sequence[Probe]) -> list[list[float]]:
        """The loss of each closure at each probe, all from the same random state and the same buffers."""
        if any(probe.rows for probe in probes):
            raise MezoError(
                "a closure computes the loss of all its rows, and this estimator asks for parts of them: use "
                "num_directions, or mezo.MeZOTrainer with row_directions"
            )
        return [self._losses(closure, probes) for closure in batches]

    def apply(self, update: Update) -> None:
        """Move theta."""
        weights = self.weights if self._in_place is None else self._in_place.weights
        self.state = self.optimizer.apply_(weights, self.state, update)
        if self._in_place is not None:
            self._in_place.release()

    def check_unmoved(self) -> None:
        """Raises MezoError if a tensor has another type or device than when the engine was made."""
        for t, (dtype, device) in zip(self.weights.tunables, self._kinds, strict=True):
            if (t.tensor.dtype, t.tensor.device) != (dtype, device):
                raise MezoError(
                    f"{t.name} was {dtype} on {device} when MeZO was made, and is {t.tensor.dtype} on {t.tensor.device} "
                    "now: make MeZO(model, ...) after model.to(...), and load_state_dict() if there was a state"
                )

    def _losses(self, closure: Callable[[], Any], probes: Sequence[Probe]) -> list[float]:
        """The closure's loss at each probe, all from the same random state and the same buffers."""
        random_state = RandomState()
        self._buffers.keep()

        def evaluate() -> float:
            random_state.restore()
            try:
                return float(closure())
            finally:
                self._buffers.put_back()

        with closing(self._visit(probes, evaluate)) as found:
            return list(found)

    def _visit(self, probes: Sequence[Probe], evaluate: Callable[[], float]) -> Generator[float]:
        """The loss at each probe."""
        if self._in_place is not None:
            with closing(self._in_place.visit(probes)) as points:
                for _ in points:
                    yield evaluate()
            return
        for probe in probes:
            loss = self._followed(probe, evaluate)
            if not self._audited:
                self._audited = True
                loss = self._audit(probe, loss, evaluate)
            yield loss

    def _followed(self, probe: Probe, evaluate: Callable[[], float]) -> float:
        """The loss at a probe; evaluated again whenever the closure read weights where the probe is not."""
        while self._probing is not None:
            watch = RawReads(self.weights, ignoring=self._probing.whole)
            with self._probing.at([probe]), watch if probe.scale else nullcontext():
                loss = evaluate()
            if not (read := self._probing.moved(watch.read, [probe])):
                return loss
            self._probing.write_whole(read)
        with self._written(probe):
            return evaluate()

    def _audit(self, probe: Probe, loss: float, evaluate: Callable[[], float]) -> float:
        """The loss with all weights written, if that is another one: then they are, from here on."""
        with self._written(probe):
            written = evaluate()
        eps = max(torch.finfo(dtype).eps for dtype, _ in self._kinds)
        # float32 sums of deep models in another order were seen 1e-5 apart; 16 bits add to that a few last places
        bound = (100 if eps < 1e-6 else 4) * eps * max(1.0, abs(written))
        if not math.isfinite(written) or abs(written - loss) <= bound:
            return loss
        with self._written(probe):
            again = evaluate()
        if abs(again - written) > abs(written - loss) / 4:
            return loss  # the closure differs from call to call by itself: this proves nothing
        warnings.warn(
            f"the closure reads weights in a way that cannot be followed (its loss is {loss:.9g}, and {written:.9g} with "
            "the perturbed weights written into their memory): from here on they are written, and put back from a copy",
            MezoWarning,
            stacklevel=11,
        )
        self._probing = None
        return written

    @contextmanager
    def _written(self, probe: Probe) -> Iterator[None]:
        """Inside the block the tensors themselves are at the probe; they get their exact bytes back."""
        moved = [n for n in range(len(self.weights.tunables)) if probe.scale and probe.factor(n)]
        theta = [(self.weights.tunables[n], self.weights.tunables[n].flat().clone()) for n in moved]
        try:
            if moved:
                self.weights.add_noise_(probe)
            yield
        finally:
            for t, data in theta:
                t.flat().copy_(data)


def _is_compiled(module: nn.Module) -> bool:
    """Whether Python does not see the forward of the module, or of one inside it."""
    return any(
        isinstance(m, torch.jit.ScriptModule)
        or hasattr(m, "_orig_mod")
        or getattr(m, "_compiled_call_impl", None) is not None
        for m in module.modules()
    )
