"""What the checks of an engine's shortcuts ask of the engine."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from mezo.config import Shortcut
from mezo.engines.perturb.forward import Probing
from mezo.engines.transformers.batch import BatchPart, LaidOut
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.frozen_layers import Below
from mezo.scoring import ScoringBatch
from mezo.types import Probe
from mezo.weights.weights import Weights


class Checked(Protocol):
    """An engine whose answers in one form can be compared with another's; `TransformersEngine` is one."""

    model: Any
    weights: Weights
    head_module: Any
    kind: Literal["causal", "masked"]
    pad: int  # token id
    probing: Probing
    form: Form
    below: Below | None  # layers that are computed once for all probes

    def allows(self, shortcut: Shortcut) -> bool:
        """Whether the person who started the run allows this shortcut."""
        ...

    def find_below(self) -> None:
        """Find out which layers can be computed once for all probes."""
        ...

    def in_form(self, batch: ScoringBatch, probes: Sequence[Probe]) -> np.ndarray:
        """(P, Q) log-probabilities in the present form."""
        ...

    def laid_out(self, posed: ScoringBatch, num_probes: int = 1) -> LaidOut:
        """The batch as the present form lays it out."""
        ...

    def inputs(self, share: BatchPart, copies: int) -> dict[str, Any]:
        """What the model is given of one part of a batch."""
        ...

    def plain_inputs(self, ids: torch.Tensor) -> dict[str, Any]:
        """What the model is given of unpadded rows of one length."""
        ...
