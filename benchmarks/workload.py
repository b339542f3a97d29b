"""The models that benchmarks run on, and their synthetic batch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.estimators import Estimator, TwoPoint
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.row_directions import RowDirections
from mezo.models.dtypes import DTYPES
from mezo.models.load import LoadedModel, load
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD, Optimizer
from mezo.scoring import Example
from mezo.tuning import TUNING, tune
from mezo.util.registry import look_up
from mezo.weights.weights import Weights

OPT_SHAPE = "opt-125m-shape"


def model_for(name: str, dtype: str) -> LoadedModel:
    """`opt-125m-shape`: OPT-125M with random weights and no tokenizer; anything else is loaded.

    Raises MezoError for an unknown model or dtype, or a model that is not causal.
    """
    torch_dtype = look_up(DTYPES, dtype, "dtype")
    if name != OPT_SHAPE:
        loaded = load(name, dtype, "cpu")
        if loaded.kind != "causal":
            raise MezoError(f"{name}: a masked language model; the benchmarks take a causal one")
        return loaded
    from transformers import OPTConfig, OPTForCausalLM

    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model: Any = OPTForCausalLM(OPTConfig())
    torch.random.set_rng_state(state)
    model.to(torch_dtype).eval().requires_grad_(False)
    return LoadedModel(model, None, "causal", name)  # type: ignore[arg-type]  # it reads no text


def copied(loaded: LoadedModel) -> LoadedModel:
    """A copy of the model that shares no memory with it."""
    return LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, loaded.kind, loaded.name)


def pad_of(loaded: LoadedModel) -> int:
    return 1 if loaded.tokenizer is None else loaded.pad_token_id


def full_batch(vocabulary: int, *, batch_size: int = 16, length: int = 64) -> list[Example]:
    """Rows of `length` tokens of which every one after the first is scored."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(5, vocabulary, (batch_size, length), generator=generator).tolist()
    return [Example(tuple(row[:1]), (tuple(row[1:]),), 0) for row in rows]


@dataclass(frozen=True)
class Tuned:
    """A model set up for a tuning mode, with its adapter if any, and the weights to tune."""

    model: Any
    weights: Weights
    pad: int

    @property
    def parameters(self) -> Sequence[torch.Tensor]:
        return [t.tensor for t in self.weights.tunables]

    def engine(
        self, objective: str, optimizer: Optimizer | None = None, **options: Any
    ) -> TransformersEngine:
        """optimizer: SGD by default."""
        return TransformersEngine(
            self.model,
            self.weights,
            OBJECTIVES[objective],
            optimizer or SGD(),
            kind="causal",
            pad_token_id=self.pad,
            **options,
        )


def a_direction_a_row(epsilon: float) -> Estimator:
    """Two-point slopes, each of one row along its own direction, for `tuned` with noise of rank one."""
    return ExactSums(RowDirections(TwoPoint(epsilon)))


def tuned(loaded: LoadedModel, tuning: str, noise: str = "gaussian") -> Tuned:
    """Raises MezoError for an unknown tuning mode."""
    look_up(TUNING, tuning, "tuning mode")
    model, weights = tune(loaded.model, MeZOConfig.build(tuning=tuning, model=loaded.name, noise=noise))
    return Tuned(model, weights, pad_of(loaded))
