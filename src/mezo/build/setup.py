"""From a config to the objects of a run: model, weights, engine, estimator."""

from collections.abc import Callable, Collection, Iterable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mezo.build.schedule import most_directions, optimizer_for
from mezo.config import MeZOConfig, Shortcut
from mezo.data import EncodedDataset, MeZODataset
from mezo.data.chat_templates import with_chat_template
from mezo.data.lazy import LazyExamples
from mezo.engines.base import Engine
from mezo.engines.perturb import matmul as product
from mezo.engines.registry import check, is_served
from mezo.engines.serving.meta_model import Outline, outline
from mezo.engines.serving.open import open_served
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.metrics import TextMetric, metric_named
from mezo.models.dtypes import DTYPES, checkpoint_dtype
from mezo.models.limits import Limits
from mezo.models.load import LoadedModel, frozen, kind_of
from mezo.models.offloaded import is_offloaded
from mezo.models.quantised import mixes_rows
from mezo.objectives import Objective, OutputObjective
from mezo.optimizers import SGD
from mezo.parallel.group import ProcessGroup
from mezo.parallel.tensor_parallel import cut_
from mezo.scoring import Example
from mezo.tuning import tune, with_adapter
from mezo.tuning.label_rows import LabelRows
from mezo.tuning.own_adapter import own_adapter
from mezo.tuning.started import base_of, load_start
from mezo.util.writing import GREEDILY, Writing
from mezo.weights.fingerprint import fingerprint_of
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be tuned: its tuned tensors, and the engine that runs it."""

    model: Any  # with its adapter, if any
    tokenizer: Any
    weights: Weights
    engine: Engine

    @property
    def device(self) -> torch.device:
        """The device of this process; a serving engine has its own."""
        tensor = self.weights.tunables[0].tensor
        return torch.device("cpu") if tensor.is_meta else tensor.device


def base_model(config: MeZOConfig, model: Any, tokenizer: Any, note: Callable[[str], None]) -> LoadedModel:
    """The model that a run starts from; for a serving engine, which loads the weights itself, its outline.

    model, tokenizer: objects in place of the config's model. note: called with messages for people.
    Raises MezoError if the model is not available, or the engine does not support this config.
    """
    check(config)
    if is_served(config):
        if isinstance(model, Outline):
            return model
        if model is not None:
            raise MezoError(
                f"engine {config.engine!r} loads its model from a folder or the hub: pass its path, not model="
            )
        outlined = outline(config, note)
        with_chat_template(outlined.tokenizer, config.chat_template)
        return outlined
    if model is None:
        note(f"loading {config.model} in {config.dtype}")
        return load_model(config, note)
    if tokenizer is None:
        raise MezoError("a model object needs its tokenizer: pass tokenizer=")
    kind = kind_of(model.config, config.model)
    if (own := own_adapter(model)) is not None:
        note(f"tuning {own.in_words()} of the model")
    return LoadedModel(frozen(model), with_chat_template(tokenizer, config.chat_template), kind, config.model)


def with_dtype(config: MeZOConfig, model: Any = None) -> MeZOConfig:
    """The config that says which dtype `auto` is: the checkpoint's, or that of a model object."""
    if config.dtype != "auto":
        return config
    found = (
        checkpoint_dtype(base_of(config.model)) if model is None else str(model.dtype).removeprefix("torch.")
    )
    return MeZOConfig.build(**{**dict(config), "dtype": found})


def load_model(config: MeZOConfig, note: Callable[[str], None] | None) -> LoadedModel:
    """The config's model, whose tokenizer has the config's chat template. Raises MezoError as `load` does."""
    loaded = load_start(
        config.model, config.dtype, config.device, config.trust_remote_code, note, quantize=config.quantize
    )
    with_chat_template(loaded.tokenizer, config.chat_template)
    return loaded


def base_fingerprint(base: LoadedModel) -> str:
    """The fingerprint of the weights that a run starts from: the same for every engine."""
    return base.fingerprint() if isinstance(base, Outline) else fingerprint_of(base.model)


def with_matmul(
    config: MeZOConfig,
    loaded: LoadedModel,
    group: ProcessGroup,
    *,
    resuming: bool,
    note: Callable[[str], None],
    profile: bool = False,
) -> MeZOConfig:
    """Choose how matrices are multiplied, put it into effect, and return the config that says so.

    For "auto" the first process measures the ways, and all processes use the fastest; so does whoever resumes the
    run.

    Args:
        config, group: of the run.
        loaded: the model; nothing is chosen for an outline.
        resuming: the run has steps already, so it has a way, or is older than the choice.
        note: called with messages for people.
        profile: report the choice even if it is the usual one.

    Raises MezoError if this machine or dtype does not have the way that the config names.
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
    config: MeZOConfig,
    loaded: LoadedModel,
    objective: Objective,
    group: ProcessGroup | None = None,
    rows: LabelRows | None = None,
) -> Prepared:
    """Prepare a model for the config's tuning mode, and build its engine: a serving one for an outline.

    group: the processes of the run. With tensor parallelism each gets a part of the model. rows: that it starts from.
    """
    if isinstance(loaded, Outline):
        model, weights, served = open_served(
            config,
            loaded,
            objective,
            lambda: optimizer_for(config),
            directions=most_directions(config),  # that are asked for at once
            note=loaded.note,
        )
        return Prepared(model, loaded.tokenizer, weights, served)
    if group is not None and group.tensor > 1:
        cut_(loaded.model, group.part, group.tensor, group.add_up)
    model, weights = tune(loaded.model, config, rows)
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
        writing=config.writing,
        rows_at_once=config.rows_at_once,
        disable_shortcuts=shortcuts_without(config.disable_shortcuts, model),
    )
    return Prepared(model, loaded.tokenizer, weights, engine)


def engine_at(
    loaded: LoadedModel,
    objective: Objective,
    *,
    adapter: Path | None = None,
    writing: Writing = GREEDILY,
    disable_shortcuts: Collection[Shortcut] = (),
) -> TransformersEngine:
    """An engine that only evaluates a loaded model.

    adapter: the folder of a peft adapter to put on the model. writing: of outputs, for metrics that read them.
    disable_shortcuts: never used. Raises MezoError if the adapter does not fit the model.
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
        writing=writing,
        disable_shortcuts=shortcuts_without(disable_shortcuts, model),
    )


def shortcuts_without(disabled: Collection[Shortcut], model: Any) -> Collection[Shortcut]:
    """The shortcuts that are never used: all of them where rows that share a pass change each other's answers.

    And where hooks fetch the weights, which only a module's own forward waits for.
    """
    return ("all",) if mixes_rows(model) or is_offloaded(model) else disabled


def encode(
    dataset: MeZODataset,
    loaded: LoadedModel,
    config: MeZOConfig,
    objective: Objective | None = None,
) -> EncodedDataset:
    """Tokenise a data set, and check that the model has room for every row, and for outputs that `objective` reads.

    Raises MezoError, naming the row, if it is too long or has a token that the model lacks.
    """
    dataset = asking(dataset, objective)
    encoded = dataset.encode(loaded.tokenizer, loaded.kind, config.max_length)
    if isinstance(encoded.examples, LazyExamples):  # each is checked when it is drawn
        check = limits_check(dataset, loaded, config, objective)
        return EncodedDataset(encoded.examples.checked(lambda example, where: check([example], [where])))
    check_limits(encoded, dataset, loaded, config, objective)
    return encoded


def asking(dataset: MeZODataset, objective: Objective | None) -> MeZODataset:
    """The data set whose rows need no answer, where the objective reads what is written."""
    if not isinstance(objective, OutputObjective):
        return dataset
    asked = copy(dataset)
    asked.task = replace(dataset.task, writes=True)
    return asked


def check_limits(
    examples: EncodedDataset,
    dataset: MeZODataset,
    loaded: LoadedModel,
    config: MeZOConfig,
    objective: Objective | None = None,
) -> None:
    """Raises MezoError, which names the row, for a token or a position that the model's tables lack."""
    limits_check(dataset, loaded, config, objective)(examples, (row.where for row in dataset.rows))


def limits_check(
    dataset: MeZODataset,
    loaded: LoadedModel | Outline,
    config: MeZOConfig,
    objective: Objective | None = None,
) -> Callable[[Iterable[Example], Iterable[str]], None]:
    """What `check_limits` does, for examples and their places; and what is written can begin and be judged as they say."""
    writes = isinstance(objective, OutputObjective) or any(
        isinstance(metric_named(name), TextMetric) for name in dataset.task.metrics or ()
    )
    fits = partial(
        Limits.of(loaded.model).check,
        tokenizer=loaded.tokenizer,
        prefix_tokens=config.prefix_tokens if config.tuning == "prefix" else 0,
        new_tokens=config.max_new_tokens if writes else 0,
    )
    needs = objective.name if isinstance(objective, OutputObjective) and objective.needs_answers else None

    def check(examples: Iterable[Example], places: Iterable[str]) -> None:
        both = list(zip(examples, places, strict=True))
        for example, where in both:
            _check_outputs(example, where, needs, writes=writes)
        fits([example for example, _ in both], [where for _, where in both])

    return check


def _check_outputs(example: Example, where: str, needs: str | None, *, writes: bool) -> None:
    """needs: the objective that compares with accepted answers, if it does. writes: whether outputs are read."""
    if example.begun and not writes:
        raise MezoError(
            f"{where}: its answer begins with {example.prefill!r:.40} (prefill, continue_final_message), and nothing is "
            "written with this objective and these metrics: leave the beginning out, or choose a reward"
        )
    if needs is not None and not example.references:
        raise MezoError(
            f"{where}: {needs} compares with accepted answers, and this row has none: give it one (a completion, or an answer "
            "beside messages), or choose a reward that needs none, such as length, regex, json or judge"
        )
