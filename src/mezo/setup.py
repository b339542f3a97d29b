"""From a config to the objects of a run: model, weights, engine, estimator."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.engines.transformers import TransformersEngine
from mezo.errors import MezoError
from mezo.estimators import ESTIMATORS, Estimator, Normalized
from mezo.models import LoadedModel
from mezo.noise import derive_seed
from mezo.objectives import OBJECTIVES, Objective
from mezo.optimizers import OPTIMIZERS, SGD, Optimizer, schedule
from mezo.registry import look_up
from mezo.tasks import Task
from mezo.tuning import tune, with_adapter
from mezo.types import Direction, Update
from mezo.weights import Weights


@dataclass(frozen=True)
class Bench:
    """A model on the bench: what it is, what of it is tuned, and where it runs."""

    model: Any  # with its adapter, if any
    tokenizer: Any
    weights: Weights
    engine: TransformersEngine


def objective_for(config: MeZOConfig, task: Task) -> Objective:
    """The config's objective; "auto" is candidate cross-entropy where there are candidates.

    Raises MezoError if the objective compares candidates and the task has none.
    """
    name = config.objective
    if name == "auto":
        name = "candidate-ce" if task.has_candidates else "answer-ce"
    objective = look_up(OBJECTIVES, name, "objective")
    if objective.needs_candidates and not task.has_candidates:
        raise MezoError(
            f"objective {name!r} compares candidates, and task {task.name!r} has none; use answer-ce"
        )
    return objective


def optimizer_for(config: MeZOConfig) -> Optimizer:
    kind = look_up(OPTIMIZERS, config.optimizer, "optimizer")
    return kind(weight_decay=config.weight_decay, rounding=config.rounding)  # type: ignore[call-arg]


def estimator_for(config: MeZOConfig, weights: Weights) -> Estimator:
    estimator = look_up(ESTIMATORS, config.estimator, "estimator")(epsilon=config.epsilon)  # type: ignore[call-arg]
    return Normalized(estimator, weights.norm) if config.normalize_perturbations else estimator


def set_up(config: MeZOConfig, loaded: LoadedModel, objective: Objective) -> Bench:
    """Prepare the loaded model for the config's tuning mode and put an engine around it."""
    model, weights = tune(loaded.model, config)
    engine = TransformersEngine(
        model,
        weights,
        objective,
        optimizer_for(config),
        kind=loaded.kind,
        pad_token_id=loaded.pad_token_id,
        memory=config.memory,
        share_prefixes=config.enable_kv_cache_optimization,
        activation_cache_bytes=config.activation_cache_mb << 20,
    )
    return Bench(model, loaded.tokenizer, weights, engine)


def engine_at(
    loaded: LoadedModel, objective: Objective, *, adapter: Path | None = None
) -> TransformersEngine:
    """An engine that only evaluates: the loaded model as it is, with a peft adapter on it or not.

    Raises MezoError if `adapter` is not one for this model.
    """
    model = loaded.model if adapter is None else with_adapter(loaded.model, adapter)
    weights = Weights(model.named_parameters())
    return TransformersEngine(
        model, weights, objective, SGD(), kind=loaded.kind, pad_token_id=loaded.pad_token_id, probes=False
    )


def encode(dataset: MeZODataset, loaded: LoadedModel, config: MeZOConfig) -> EncodedDataset:
    return dataset.encode(loaded.tokenizer, loaded.kind, config.max_length)


def learning_rate(config: MeZOConfig, step: int) -> float:
    return config.learning_rate * schedule(
        config.schedule, step, config.num_steps, warmup_steps=config.warmup_steps
    )


def recorded_update(config: MeZOConfig, step: int, projected_grads: Any) -> Update:
    """The update of a step, rebuilt from what the trajectory keeps of it."""
    return Update(
        step,
        learning_rate(config, step),
        tuple(Direction(derive_seed(config.seed, step, k), float(g)) for k, g in enumerate(projected_grads)),
    )
