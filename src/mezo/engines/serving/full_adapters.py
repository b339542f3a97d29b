"""Linear layers on a serving engine along noise of rank one: theta is the engine's weights, each probe an adapter over them.

z = r s^T of two vectors of signs, so theta + eps z is the base with a LoRA adapter of rank 1: lora_A is s, lora_B is
eps r. All probes of a step are asked in one call, and the weights stay at theta. The workers move them by the exact sum of
products (`mezo.weights.rank_one`), so no second copy of theta is kept, and no weights travel.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from mezo.engines.serving.backend import Backend
from mezo.engines.serving.engine import ServedPoint
from mezo.engines.serving.full import InWorkers
from mezo.engines.serving.lora import PREFIX, new_names, points_of
from mezo.engines.workers.group import Workers
from mezo.optimizers import Optimizer
from mezo.types import Probe, Update
from mezo.util.profiling import span
from mezo.weights.rank_one import RankOne
from mezo.weights.tunable import canonical
from mezo.weights.weights import Weights


class RankOneAdapters(InWorkers):
    def __init__(
        self,
        backend: Backend,
        workers: Workers,
        optimizer: Optimizer,
        checkpoint: Callable[[], tuple[Any, Weights]],
        note: Callable[[str], None],
        *,
        weights: Weights,
        config: dict[str, Any],
    ):
        """weights: what is tuned, of which only names and shapes are used. config: what peft writes for the adapters."""
        super().__init__(backend, workers, optimizer, checkpoint, note)
        self.weights, self.config = weights, config
        self.names = new_names()
        self._fresh = False  # whether nothing was asked at theta since it moved

    def visit(self, probes: Sequence[Probe]) -> Iterator[Sequence[ServedPoint]]:
        # an engine's cache is keyed by name, so every probe has a new one
        own = {next(self.names): probe for probe in probes if probe.scale}
        with span("noise"):
            tensors = self._tensors(list(own.values()))
        with span("forward"):
            if own:
                self.backend.load_adapters(dict(zip(own, tensors, strict=True)), self.config)
        fresh, self._fresh = self._fresh, self._fresh and len(own) == len(probes)
        try:
            yield points_of(probes, own, None, fresh)
        finally:
            self.backend.unload_adapters(list(own))

    def apply(self, update: Update) -> None:
        super().apply(update)
        self._fresh = True

    def _tensors(self, probes: Sequence[Probe]) -> list[dict[str, torch.Tensor]]:
        """[probe][name]: an adapter for each, under peft's names; without the tensors that a probe leaves alone."""
        found: list[dict[str, torch.Tensor]] = [{} for _ in probes]
        seeds = list(dict.fromkeys(probe.seed for probe in probes))  # both signs go along the same vectors
        for n, tunable in enumerate(self.weights.tunables):
            low = tunable.low_rank
            assert isinstance(low, RankOne)
            assert not any(probe.drift for probe in probes)
            lefts = dict(zip(seeds, low.lefts(seeds) if seeds else (), strict=True))
            rights = dict(zip(seeds, low.rights(seeds) if seeds else (), strict=True))
            path = PREFIX + tunable.name.removesuffix(".weight")
            for probe, own in zip(probes, found, strict=True):
                if scale := probe.scale_in(n):
                    own[f"{path}.lora_A.weight"] = rights[probe.seed]
                    own[f"{path}.lora_B.weight"] = lefts[probe.seed].t() * scale
        return found


def takes_adapters(model: Any, weights: Weights) -> bool:
    """Whether each tuned tensor is the matrix of a linear layer that takes adapters in an engine, which the head does not."""
    head = model.get_output_embeddings()
    matrices = {
        canonical(f"{path}.weight")
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return all(isinstance(t.low_rank, RankOne) and t.name in matrices for t in weights.tunables)


def rank_one_config(weights: Weights) -> LoraConfig:
    """Of the adapters over all that is tuned: their product is added as it is."""
    layers = sorted({t.name.split(".")[-2] for t in weights.tunables})
    return LoraConfig(r=1, lora_alpha=1, target_modules=layers, task_type="CAUSAL_LM")
