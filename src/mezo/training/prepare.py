"""From a config to everything that a run needs before its first step: data, model, engine, estimator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mezo
from mezo.algorithm import draw_of
from mezo.build.schedule import directions_at, estimator_for, objective_for
from mezo.build.setup import Prepared, base_fingerprint, base_model, encode, set_up, with_matmul
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset
from mezo.data.from_config import training_set, validation_set
from mezo.engines.base import Engine
from mezo.estimators import Estimator
from mezo.models.identity import identity_of
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.objectives import Objective
from mezo.parallel.group import ProcessGroup
from mezo.parallel.start import around, check_alike, settled
from mezo.resume.compatibility import data_of
from mezo.resume.plan import remembers
from mezo.resume.session import Resume
from mezo.tasks import Task, task_for


@dataclass(frozen=True)
class Given:
    """Objects that replace what the config names."""

    train: MeZODataset | None = None
    validation: MeZODataset | None = None
    model: Any = None
    tokenizer: Any = None


@dataclass(frozen=True)
class RunSetup:
    """Everything a run needs before its first step."""

    config: MeZOConfig  # without "auto"
    header: dict[str, Any]  # what a replay needs besides the records, and what a resumed run is compared with
    task: Task
    objective: Objective
    train_set: EncodedDataset
    validation_set: EncodedDataset | None
    bench: Prepared
    engine: Engine  # the bench's, or around it the one that shares the work with other processes
    estimator: Estimator
    remembers: bool  # whether the estimator has a state that records do not hold


def prepare_run(
    config: MeZOConfig,
    given: Given,
    resume: Resume | None,
    group: ProcessGroup,
    *,
    note: Callable[[str], None],
    profile: bool = False,
) -> RunSetup:
    """Load data and model, check them against the run to resume and on all processes, and build the engine.

    Args:
        config: of the steps to come.
        given: objects that replace what the config names.
        resume: the run to resume, if there is one.
        group: the processes of this run.
        note: called with what a person should know.
        profile: say how matrices are multiplied.

    Raises:
        MezoError: the config, the data or the model cannot be used.
        Changed: the run to resume has another base model or other examples.
    """
    resuming = resume is not None
    config = settled(config, group, resuming=resuming, note=note)
    task = given.train.task if given.train else task_for(config.task, config.label_words, config.template)
    objective = objective_for(config, task)
    train, validation = _datasets(config, task, given, note)
    base = base_model(config, given.model, given.tokenizer, note)
    config = with_matmul(config, base, group, resuming=resuming, note=note, profile=profile)
    train_set = encode(train, base, config, objective)
    validation_set = None if validation is None else encode(validation, base, config, objective)
    header = _header(config, base_fingerprint(base), identity_of(base), data_of(train_set, validation_set))
    identity = header["base_fingerprint"], header["model"], header["data"]
    if resume is not None and (said := resume.check(*identity)) is not None:
        note(said)
    check_alike(group, config, *identity)
    bench = set_up(config, base, objective, group)
    estimator = estimator_for(config, bench.weights)
    return RunSetup(
        config=config,
        header=header,
        task=task,
        objective=objective,
        train_set=train_set,
        validation_set=validation_set,
        bench=bench,
        engine=around(bench.engine, bench.weights, group, config),
        estimator=estimator,
        remembers=remembers(estimator, draw_of(config.seed, 0, directions_at(config, 0))),
    )


def _datasets(
    config: MeZOConfig, task: Task, given: Given, note: Callable[[str], None]
) -> tuple[MeZODataset, MeZODataset | None]:
    """The training and the validation examples: those given, or the config's where no training set is given."""
    train, validation = given.train, given.validation
    if train is None:
        train = training_set(config, task)
        validation = validation or validation_set(config, task)
    if config.batch_size * config.gradient_accumulation > len(train):
        note(
            f"the training set has {len(train)} examples, less than a step of batch_size={config.batch_size}"
            + (f" x {config.gradient_accumulation}" if config.gradient_accumulation > 1 else "")
            + ": a step takes what there is"
        )
    return train, validation


def _header(
    config: MeZOConfig, fingerprint: str, identity: dict[str, Any], data: dict[str, str | None]
) -> dict[str, Any]:
    return {
        "mezo": mezo.__version__,
        "noise": NOISE_VERSION,
        "base_fingerprint": fingerprint,
        "model": identity,
        "data": data,
        "config": config.model_dump(mode="json"),
    }
