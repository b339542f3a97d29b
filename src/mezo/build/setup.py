"""From a config to the objects of a run: model, weights, engine, estimator."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mezo.build.schedule import most_directions, optimizer_for
from mezo.config import MeZOConfig, Shortcut
from mezo.data import EncodedDataset, MeZODataset
from mezo.engines.base import Engine
from mezo.engines.perturb import matmul as product
from mezo.engines.registry import check, is_served
from mezo.engines.serving.meta_model import Outline, outline
from mezo.engines.serving.open import open_served
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.metrics import METRICS, TextMetric
from mezo.models.limits import Limits
from mezo.models.load import DTYPES, LoadedModel, frozen, kind_of, load
from mezo.objectives import Objective, OutputObjective
from mezo.optimizers import SGD
from mezo.parallel.group import ProcessGroup
from mezo.parallel.tensor_parallel import cut_
from mezo.tuning import tune, with_adapter
from mezo.weights.fingerprint import fingerprint
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class Prepared:
    """A model on the bench: what it is, what of it is tuned, and where it runs."""

    model: Any  # with its adapter, if any
    tokenizer: Any
    weights: Weights
    engine: Engine

    @property
    def device(self) -> torch.device:
        """Where this process computes; what a serving engine computes on is its own affair."""
        tensor = self.weights.tunables[0].tensor
        return torch.device("cpu") if tensor.is_meta else tensor.device


def base_model(
    config: MeZOConfig, model: Any, tokenizer: Any, note: Callable[[str], None]
) -> LoadedModel | Outline:
    """What a run starts from: the model given, or the config's; its outline alone where an engine holds it.

    Raises MezoError for a model that is not available, and for an engine that cannot do what the config asks.
    """
    check(config)
    if is_served(config):
        if model is not None:
            raise MezoError(
                f"engine {config.engine!r} loads its model from a folder or the hub: pass its path, not model="
            )
        return outline(config, note)
    if model is None:
        note(f"loading {config.model} in {config.dtype}")
        return load(config.model, config.dtype, config.device, config.trust_remote_code, note)
    if tokenizer is None:
        raise MezoError("a model object needs its tokenizer: pass tokenizer=")
    kind = kind_of(model.config, config.model)
    return LoadedModel(frozen(model), tokenizer, kind, config.model)


def base_fingerprint(base: LoadedModel | Outline) -> str:
    """Of the weights that the run starts from: the same for every engine."""
    return base.fingerprint() if isinstance(base, Outline) else fingerprint(base.model.named_parameters())


def with_matmul(
    config: MeZOConfig,
    loaded: LoadedModel | Outline,
    group: ProcessGroup,
    *,
    resuming: bool,
    note: Callable[[str], None],
    profile: bool = False,
) -> MeZOConfig:
    """The config with the way matrices are multiplied in this run, which goes into effect: measured by the first
    process where the config says "auto", and then the same for all of them and for whoever resumes the run.

    Raises MezoError for a way that this machine or this type does not have.
    """
    if isinstance(loaded, Outline):
        return config
    dtype = DTYPES[config.dtype]
    ways, matmul = product.WAYS[dtype], config.matmul
    if matmul == "auto" and resuming:
        matmul = product.usual(dtype)  # of a run that does not say: it was begun when this was the rule
    elif matmul == "auto":
        found = product.measured(loaded.model, dtype) if group.leads else None
        chosen = group.texts("" if found is None else found.matmul)[0]
        matmul = next(name for name in ways if name == chosen)
        if found is not None and (profile or matmul != product.usual(dtype)):
            note(f"products of {config.dtype} matrices: {found.in_words()} on this processor")
    if matmul not in ways or ("onednn" in matmul and not product.has_onednn()):
        able = [name for name in ways if "onednn" not in name or product.has_onednn()]
        raise MezoError(
            f"matmul={matmul!r} cannot multiply {config.dtype} matrices here: choose {' or '.join(able)}"
        )
    product.use(dtype, matmul)
    return config.model_copy(update={"matmul": matmul})


def set_up(
    config: MeZOConfig, loaded: LoadedModel | Outline, objective: Objective, group: ProcessGroup | None = None
) -> Prepared:
    """Prepare the model for the config's tuning mode and put an engine around it: for an outline, a serving one.

    group: the processes of the run; those that share the model get a part of it each.
    """
    if isinstance(loaded, Outline):
        model, weights, served = open_served(
            config,
            loaded,
            objective,
            lambda: optimizer_for(config),
            directions=most_directions(config),
            note=loaded.note,
        )
        return Prepared(model, loaded.tokenizer, weights, served)
    if group is not None and group.tensor > 1:
        cut_(loaded.model, group.part, group.tensor, group.add_up)
    model, weights = tune(loaded.model, config)
    engine = TransformersEngine(
        model,
        weights,
        objective,
        optimizer_for(config),
        kind=loaded.kind,
        pad_token_id=loaded.pad_token_id,
        memory=config.memory,
        granularity=config.granularity,
        granularity_block=config.granularity_block,
        share_prefixes=config.enable_kv_cache_optimization,
        activation_cache_bytes=config.activation_cache_mb << 20,
        tokenizer=loaded.tokenizer,
        max_new_tokens=config.max_new_tokens,
        disable_shortcuts=config.disable_shortcuts,
    )
    return Prepared(model, loaded.tokenizer, weights, engine)


def engine_at(
    loaded: LoadedModel,
    objective: Objective,
    *,
    adapter: Path | None = None,
    max_new_tokens: int = 32,
    disable_shortcuts: Collection[Shortcut] = (),
) -> TransformersEngine:
    """An engine that only evaluates: the loaded model as it is, with a peft adapter on it or not.

    max_new_tokens: of an output, where a metric reads outputs.

    Raises MezoError if `adapter` is not one for this model.
    """
    model = loaded.model if adapter is None else with_adapter(loaded.model, adapter)
    weights = Weights(model.named_parameters())
    return TransformersEngine(
        model,
        weights,
        objective,
        SGD(),
        kind=loaded.kind,
        pad_token_id=loaded.pad_token_id,
        probes=False,
        tokenizer=loaded.tokenizer,
        max_new_tokens=max_new_tokens,
        disable_shortcuts=disable_shortcuts,
    )


def encode(
    dataset: MeZODataset,
    loaded: LoadedModel | Outline,
    config: MeZOConfig,
    objective: Objective | None = None,
) -> EncodedDataset:
    """Tokenise a data set and hold it against the model's tables.

    objective: of the run, if there is one: it may want text to be written after each prompt.
    Raises MezoError, which names the row, for one that the tokenizer or the model has no room for.
    """
    encoded = dataset.encode(loaded.tokenizer, loaded.kind, config.max_length)
    check_limits(encoded, dataset, loaded, config, objective)
    return encoded


def check_limits(
    examples: EncodedDataset,
    dataset: MeZODataset,
    loaded: LoadedModel | Outline,
    config: MeZOConfig,
    objective: Objective | None = None,
) -> None:
    """Raises MezoError, which names the row, for a token or a position that the model has no row for."""
    writes = isinstance(objective, OutputObjective) or any(
        isinstance(METRICS.get(name), TextMetric) for name in dataset.task.metrics or ()
    )
    Limits.of(loaded.model).check(
        examples,
        (row.where for row in dataset.rows),
        loaded.tokenizer,
        prefix_tokens=config.prefix_tokens if config.tuning == "prefix" else 0,
        new_tokens=config.max_new_tokens if writes else 0,
    )
