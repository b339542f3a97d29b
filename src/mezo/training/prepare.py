"""From a config to everything that a run needs before its first step: data, model, engine, estimator."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import mezo
from mezo import estimators
from mezo.algorithm import draw_of
from mezo.build.schedule import directions_at, objective_for
from mezo.build.setup import Prepared, base_fingerprint, base_model, encode, set_up, with_dtype, with_matmul
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset, MeZODataset, from_config
from mezo.data.references import References
from mezo.models.identity import identity_of
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.objectives import Objective, PreferenceObjective
from mezo.parallel.checks import agree
from mezo.parallel.group import ProcessGroup
from mezo.parallel.start import around, check_alike, settled
from mezo.resume.compatibility import data_of
from mezo.resume.plan import FreshRun, remembers
from mezo.resume.reference_file import references_of
from mezo.resume.session import Resume
from mezo.tasks import Task
from mezo.training.head_start import head_start
from mezo.training.reference import drawn_of, referenced, with_references
from mezo.training.samples import Samples
from mezo.tuning.own_adapter import own_adapter
from mezo.util.plugins import record_of


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

    task: Task
    objective: Objective
    train_set: EncodedDataset
    validation_set: EncodedDataset | None
    bench: Prepared
    samples: Samples
    run: FreshRun  # its engine is the bench's, or the one around it that shares the work among processes


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
        note: called with messages for people.
        profile: say how matrices are multiplied.

    Raises MezoError if config, data or model cannot be used, Changed if the run to resume has others.
    """
    resuming = resume is not None
    used = record_of(config.model_dump())
    config = settled(with_dtype(config, given.model), group, resuming=resuming, note=note)
    train, validation = (_judged(each, config) for each in (given.train, given.validation))
    if train is None:
        train = from_config.training_set(config, from_config.task_of(config))
        validation = from_config.validation_set(config, train.task) if validation is None else validation
    task = train.task
    if config.task == "auto":
        config = config.model_copy(update={"task": task.name})
    objective = objective_for(config, task)
    if train.words and not resuming:
        note(train.words)
    if config.eval_every and validation is None:
        note(
            f"warning: eval_every={config.eval_every}, and there is nothing to evaluate on: give a folder with a validation "
            "file, or hold out a share of the data (--split-sizes 10%)"
        )
    _tell_of_a_small_set(config, len(train), note)
    config = _with_halves(config, len(train), note)
    base = base_model(config, given.model, given.tokenizer, note)
    config = _with_own_adapter(config, base.model, given, note if not resuming else lambda said: None)
    config = with_matmul(config, base, group, resuming=resuming, note=note, profile=profile)
    train_set = encode(train, base, config, objective)
    validation_set = None if validation is None else encode(validation, base, config, objective)
    fingerprint, identity = base_fingerprint(base), identity_of(base)
    data = data_of(train_set, validation_set)
    if resume is not None and (said := resume.check(fingerprint, identity, data)) is not None:
        note(said)
    check_alike(group, config, fingerprint, identity, data)
    agree(group, {f"source of {name}": entry["source"] for name, entry in used.items()})
    start = head_start(config, base, (train_set, objective), group, resume=resume, note=note)
    rows = None if start is None else start.rows
    bench = set_up(config, base, objective, group, rows)
    engine = around(bench.engine, bench.weights, group, config)
    references = None
    if isinstance(objective, PreferenceObjective) and objective.needs_reference:
        known = References() if resume is None else references_of(resume.run.path)
        sets = [*([] if validation_set is None else [validation_set]), drawn_of(train_set, config)]
        references = referenced(engine, sets, known, note)
        train_set = with_references(train_set, references)
        validation_set = validation_set and with_references(validation_set, references)
    estimator = estimators.build(config, bench.weights)
    header = {
        "mezo": mezo.__version__,
        "noise": NOISE_VERSION,
        "base_fingerprint": fingerprint,
        "model": identity,
        "data": data,
        "config": config.model_dump(mode="json"),
        **({"plugins": used} if used else {}),
        **({"start": start.record} if start else {}),
    }
    has_memory = remembers(estimator, draw_of(config.seed, 0, directions_at(config, 0)))
    run = FreshRun(config, header, bench.weights, engine, estimator, has_memory, rows, references)
    seen = train_set if validation_set is None else validation_set
    first = [seen[i] for i in range(min(config.show_samples, len(seen)))]
    samples = Samples(engine, objective, bench.tokenizer, first)
    return RunSetup(task, objective, train_set, validation_set, bench, samples, run)


def _with_own_adapter(
    config: MeZOConfig, model: Any, given: Given, note: Callable[[str], None]
) -> MeZOConfig:
    """A model that brings a LoRA adapter along: the config says what that is, and people hear that no other is made."""
    own = own_adapter(model)
    if own is None:
        return config
    said = f"tuning {own.in_words()}: no second one is made"
    if given.model is not None:
        said += "; `mezo replay` cannot make its weights again: save the adapter, and give its folder as the model, for that"
    note(said)
    if own.kind != "LORA":
        return config
    targets = own.settings.target_modules
    found: dict[str, Any] = {"lora_rank": own.settings.r, "lora_alpha": own.settings.lora_alpha}
    found["lora_targets"] = tuple(sorted(targets)) if isinstance(targets, list | set | tuple) else (targets,)
    return config.model_copy(update=found)


def _with_halves(config: MeZOConfig, examples: int, note: Callable[[str], None]) -> MeZOConfig:
    """A measured rate cuts each batch into halves: where an odd number of examples is a whole batch, all but one of them."""
    if (
        config.learning_rate != "auto"
        or config.batch_size % 2
        or examples >= config.batch_size
        or examples % 2 == 0
    ):
        return config
    size = max(1, examples - 1)
    note(
        f"batch_size is {size}: learning_rate='auto' measures by halves of a batch, and there are {examples} examples"
    )
    return config.model_copy(update={"batch_size": size})


def _judged(given: MeZODataset | None, config: MeZOConfig) -> MeZODataset | None:
    """A data set that was given as an object, with the config's metrics, if it names any."""
    if given is None or config.metrics is None:
        return given
    judged = copy(given)
    judged.task = replace(given.task, metrics=config.metrics)
    return judged


def _tell_of_a_small_set(config: MeZOConfig, examples: int, note: Callable[[str], None]) -> None:
    if config.batch_size * config.gradient_accumulation > examples:
        note(
            f"the training set has {examples} examples, less than a step of batch_size={config.batch_size}"
            + (f" x {config.gradient_accumulation}" if config.gradient_accumulation > 1 else "")
            + ": a step takes what there is"
        )
