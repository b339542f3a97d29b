"""LoRA on a serving engine: theta is the adapter, and lives here; each probe is an adapter of its own.

theta + eps z is made in this process and handed to the engine in memory; one call asks for all probes of a step. An
engine's cache is keyed by adapter name, so every adapter gets a new name.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch

from mezo.engines.serving.backend import Backend
from mezo.engines.serving.engine import Placement, ServedPoint
from mezo.optimizers import Optimizer
from mezo.types import THETA, Probe, Update
from mezo.util.profiling import span
from mezo.weights.weights import Weights

PREFIX = "base_model.model."  # what peft puts before the names in adapter_model.safetensors


class Adapters(Placement):
    def __init__(self, backend: Backend, weights: Weights, optimizer: Optimizer, config: dict[str, Any]):
        """config: what peft writes to adapter_config.json."""
        self.backend, self.weights, self.optimizer, self.config = backend, weights, optimizer, config
        self.state = optimizer.init(weights)
        self.names = new_names()
        self._theta: str | None = None  # the name it is loaded under, until it moves

    def visit(self, probes: Sequence[Probe]) -> Iterator[Sequence[ServedPoint]]:
        fresh = self._theta is None
        if fresh and any(not probe.scale for probe in probes):
            name = next(self.names)
            self._load({name: THETA})
            self._theta = name
        own = {next(self.names): probe for probe in probes if probe.scale}
        self._load(own)
        try:
            yield points_of(probes, own, self._theta, fresh)
        finally:
            self.backend.unload_adapters(list(own))

    def apply(self, update: Update) -> None:
        self.state = self.optimizer.apply_(self.weights, self.state, update)
        if self._theta is not None:
            name, self._theta = self._theta, None
            self.backend.unload_adapter(name)

    def finished(self, model: Any) -> Any:
        return model

    def leave(self, name: str) -> None:
        self.backend.load_adapter(name, self._tensors(THETA), self.config)

    def _load(self, probes: Mapping[str, Probe]) -> None:
        with span("noise"):
            adapters = {name: self._tensors(probe) for name, probe in probes.items()}
        with span("forward"):
            if adapters:
                self.backend.load_adapters(adapters, self.config)

    def _tensors(self, probe: Probe) -> dict[str, torch.Tensor]:
        """The adapter at the probe, under peft's names."""
        found = {}
        for n, tunable in enumerate(self.weights.tunables):
            copy = torch.empty_like(tunable.tensor.detach())
            self.weights.write(n, probe, copy.view(1, -1))
            found[PREFIX + tunable.name] = copy
        return found


def new_names() -> Iterator[str]:
    """Names of adapters of one run, none of them twice."""
    run = uuid.uuid4().hex[:12]
    return (f"mezo-{run}-{number}" for number in count())


def points_of(
    probes: Sequence[Probe], own: Mapping[str, Probe], theta: str | None, fresh: bool
) -> list[ServedPoint]:
    """Where the probes can be asked.

    own: the adapters of those beyond theta, in their order. theta: its adapter. fresh: whether nothing was asked of it; the
    first of several points at theta is then the only fresh one, as the others may read what it left in the cache.
    """
    names, points = iter(own), list[ServedPoint]()
    for probe in probes:
        if probe.scale:
            points.append(ServedPoint(next(names), fresh=True))
        else:
            points.append(ServedPoint(theta, fresh))
            fresh = False
    return points
