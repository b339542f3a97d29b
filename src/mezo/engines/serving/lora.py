"""LoRA on a serving engine: theta is the adapter, and lives here; each probe is an adapter of its own.

theta + eps z is made in this process and handed to the engine in memory; one call asks for all probes of a step. An
engine's cache is keyed by adapter name, so every adapter gets a new name.
"""

import uuid
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch

from mezo.engines.serving.backend import Backend
from mezo.engines.serving.engine import Placement, ServedPoint
from mezo.optimizers import Optimizer
from mezo.types import THETA, Probe, Update
from mezo.util.profiling import span
from mezo.weights.weights import Weights

_PREFIX = "base_model.model."  # what peft puts before the names in adapter_model.safetensors


class Adapters(Placement):
    def __init__(self, backend: Backend, weights: Weights, optimizer: Optimizer, config: dict[str, Any]):
        """config: what peft writes to adapter_config.json."""
        self.backend, self.weights, self.optimizer, self.config = backend, weights, optimizer, config
        self.state = optimizer.init(weights)
        self._run, self._numbers = uuid.uuid4().hex[:12], count()
        self._theta: str | None = None  # the name it is loaded under, until it moves

    def visit(self, probes: Sequence[Probe]) -> Iterator[Sequence[ServedPoint]]:
        points: list[ServedPoint] = []
        own: list[str] = []
        try:
            for probe in probes:
                if probe.scale:
                    own.append(self._load(probe))
                    points.append(ServedPoint(own[-1], fresh=True))
                else:
                    fresh, self._theta = self._theta is None, self._theta or self._load(THETA)
                    points.append(ServedPoint(self._theta, fresh))
            yield points
        finally:
            for name in own:
                self.backend.unload_adapter(name)

    def apply(self, update: Update) -> None:
        self.state = self.optimizer.apply_(self.weights, self.state, update)
        if self._theta is not None:
            name, self._theta = self._theta, None
            self.backend.unload_adapter(name)

    def finished(self, model: Any) -> Any:
        return model

    def leave(self, name: str) -> None:
        self.backend.load_adapter(name, self._tensors(THETA), self.config)

    def _load(self, probe: Probe) -> str:
        name = f"mezo-{self._run}-{next(self._numbers)}"
        with span("noise"):
            tensors = self._tensors(probe)
        with span("forward"):
            self.backend.load_adapter(name, tensors, self.config)
        return name

    def _tensors(self, probe: Probe) -> dict[str, torch.Tensor]:
        """The adapter at the probe, under peft's names."""
        found = {}
        for n, tunable in enumerate(self.weights.tunables):
            copy = torch.empty_like(tunable.tensor.detach())
            self.weights.write(n, probe, copy.view(1, -1))
            found[_PREFIX + tunable.name] = copy
        return found
