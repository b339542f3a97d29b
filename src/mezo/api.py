"""The library in three calls: tune, evaluate, replay."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from mezo.build.schedule import objective_for
from mezo.build.setup import asking, check_limits, encode, engine_at, load_model, with_dtype, with_matmul
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.demonstrations import Demonstrated, demonstrate, draw
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.data.references import References
from mezo.data.sources import has_splits
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES, Objective, PreferenceObjective, told
from mezo.parallel.group import ProcessGroup
from mezo.resume.replay import replay as replay
from mezo.training.evaluation import ModelAnswers
from mezo.training.evaluation import evaluate as score
from mezo.training.reference import referenced, with_references
from mezo.training.shown import shown
from mezo.training.trainer import MeZOTrainer, TrainResult
from mezo.tuning.started import base_of
from mezo.util import memory
from mezo.util.other_names import SAME, answer, in_our_names

# of mezo_finetune beyond the config's own
TRAINER_ARGUMENTS = (
    "output",
    "overwrite",
    "observer",
    "model",
    "tokenizer",
    "processing_class",
    "compute_metrics",
    "callbacks",
    "profile",
    "trace_steps",
    "resume",
    "fork",
)


def mezo_finetune(
    model_path: str,
    train_dataset: str | PathLike[str] | Sequence[Mapping[str, Any]] | MeZODataset,
    lora_rank: int = 8,
    learning_rate: float | Literal["auto"] = 1e-6,
    num_steps: int = 10000,
    epsilon: float = 1e-3,
    batch_size: int = 64,
    max_length: int = 512,
    normalize_perturbations: bool = False,
    server_args: Any = None,
    serve_as: str | None = None,
    **kwargs: Any,
) -> TrainResult:
    """Tune a language model with forward passes only; the defaults are the paper's.

    Args:
        model_path: a folder, a hub id, or "smollm2-135m".
        train_dataset: a file, a folder, a hub data set, a list of dicts, a frame, or a MeZODataset, which says what rows
            may look like. With task="sst2" (or another) the rows have that task's fields. A validation split of it is
            evaluated on.
        lora_rank: 0 tunes all parameters. A LoRA adapter starts at zero and needs a larger learning rate than
            the default (the paper: 5e-5 to 1e-4); a MezoWarning says so.
        learning_rate: the step size; "auto": from the curvature that the probes measure.
        num_steps: updates.
        epsilon: the size of the perturbation, in units of the weights.
        batch_size: examples a step.
        max_length: tokens of an example; longer ones are cut.
        normalize_perturbations: directions of unit length.
        server_args: options of a serving engine, such as SGLang's mem_fraction_static, by name; or SGLang's ServerArgs or
            vLLM's EngineArgs, of which counts what differs from its defaults.
        serve_as: with a serving engine, the tuned adapter stays loaded in it under this name. The result's `engine`
            is that engine; its close() ends it.
        kwargs: any other field of MeZOConfig, and validation_dataset, output (the RUN folder; without it nothing is
            written), overwrite, observer, model (an object), tokenizer, profile, trace_steps, resume, fork (see
            MeZOTrainer).

    Returns:
        What the run came to: losses, metrics, the tuned model.

    Raises:
        MezoError: a setting, the data or the model cannot be used.

    Reference:
        Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.

    Example:
        >>> import mezo
        >>> result = mezo.mezo_finetune("./my-model", "tickets.jsonl", learning_rate=1e-3, num_steps=3)
        >>> len(result.losses)
        3
    """
    if server_args is not None:
        kwargs["server_args"] = server_args
    trainer = {name: kwargs.pop(name) for name in TRAINER_ARGUMENTS if name in kwargs}
    validation = kwargs.pop("validation_dataset", None)
    if validation is None:
        validation = kwargs.pop("eval_dataset", None)
    named = {
        "lora_rank": lora_rank,
        "learning_rate": learning_rate,
        "num_steps": num_steps,
        "epsilon": epsilon,
        "batch_size": batch_size,
        "max_length": max_length,
        "normalize_perturbations": normalize_perturbations,
    }
    settings = _settings(named, kwargs)
    lora_rank = settings.pop("lora_rank")
    known = set(MeZOConfig.model_fields) - {"model"}
    for name in settings:
        if name not in known:
            raise MezoError(
                f"mezo_finetune has no argument {name!r}{answer(name, known | {*TRAINER_ARGUMENTS})}"
            )
    tuning = {"tuning": "lora", "lora_rank": lora_rank} if lora_rank else {"tuning": "full"}
    given = isinstance(train_dataset, MeZODataset)
    config = MeZOConfig.build(
        **{
            "model": str(model_path),
            "task": train_dataset.task.name if isinstance(train_dataset, MeZODataset) else "auto",
            "data": str(train_dataset) if isinstance(train_dataset, str | PathLike) else None,
            **tuning,
            **settings,
        }
    )
    train = train_dataset if given else training_set(config, task_of(config, train_dataset), train_dataset)
    if validation is None and not given:
        validation = validation_set(config, train.task, train_dataset)
    elif validation is not None and not isinstance(validation, MeZODataset):
        validation = MeZODataset(
            validation,
            task=train.task,
            split="validation",
            seed=config.eval_seed,
            max_examples=config.eval_examples,
        )
    runner = MeZOTrainer(config, train=train, validation=validation, **trainer)
    try:
        result = runner.train()
        if serve_as is not None:
            runner.engine.serve(serve_as)
            result.engine = runner.engine
    except BaseException:
        runner.close()
        raise
    if serve_as is None:
        runner.close()
    return result


def _settings(named: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Settings by mezo's names. named: the arguments of `mezo_finetune`; another name of one counts where it was left out.

    Raises MezoError for two values of one setting, and for a name that stands for none of mezo's.
    """
    given = {k: value for k, value in named.items() if value != MeZOConfig.model_fields[k].default}
    if "warmup_ratio" in others and not any(SAME.get(name) == "num_steps" for name in others):
        given["num_steps"] = named["num_steps"]
    try:
        found = in_our_names({**given, **others}, {*MeZOConfig.model_fields, *TRAINER_ARGUMENTS})
    except ValueError as error:
        raise MezoError(str(error)) from None
    return {**named, **found}


def evaluate(
    config: MeZOConfig,
    *,
    adapter: Path | None = None,
    split: str = "validation",
    shots: int = 0,
    show: int = 0,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Accuracy and loss of the config's model on a split of its task's data, as a plain dict.

    adapter: a peft adapter's folder, put on top of the model.
    shots: in-context learning: this many training examples, solved, before every prompt, by the config's
        seed. As many as fit are shown; the result's `shots_shown` is their mean number.
    show: this many of the examples are in the result's `shown`: prompt, expected, and chosen or written.
    """
    dataset = MeZODataset(
        config.data,
        task=task_of(config),
        split=split,
        seed=config.eval_seed,
        max_examples=config.eval_examples,
        split_sizes=config.split_sizes,
    )
    if dataset.words and observer:
        observer.on_note(dataset.words)
    if adapter is not None:  # in place of the one that the model may be a folder of
        config = config.model_copy(update={"model": base_of(config.model)})
    objective, config = objective_for(config, dataset.task), with_dtype(config)
    loaded = load_model(config, observer and observer.on_note)
    with_matmul(
        config,
        loaded,
        ProcessGroup(),
        resuming=False,
        note=observer.on_note if observer else lambda said: None,
    )
    objective = _without_a_start(config, objective) if adapter is None else objective
    solved = _with_shots(dataset, loaded, config, shots, objective) if shots else None
    if solved and observer:
        observer.on_note(solved.describe(shots))
    examples = solved.examples if solved else encode(dataset, loaded, config, objective)
    if isinstance(objective, PreferenceObjective) and objective.needs_reference and adapter is not None:
        before = engine_at(loaded, objective, disable_shortcuts=config.disable_shortcuts)
        examples = with_references(examples, referenced(before, [examples], References()))
    engine = engine_at(
        loaded,
        objective,
        adapter=adapter,
        writing=config.writing,
        disable_shortcuts=config.disable_shortcuts,
    )
    if config.audit:
        engine.audit_next()
    if solved:
        check_limits(examples, dataset, loaded, config, objective)
    task, answers = dataset.task, ModelAnswers()
    record = score(
        engine,
        examples,
        objective,
        has_candidates=task.has_candidates,
        metrics=task.metrics,
        split=split,
        answers=answers,
    )
    if observer and (said := told(objective)):
        observer.on_note(said)
    first = [examples[n] for n in range(min(show, len(examples)))]
    seen = (
        shown(engine, first, answers, has_candidates=task.has_candidates, ends=task.append_eos)
        if first
        else []
    )
    values = asdict(record)
    values.pop("step")
    return {
        "model": config.model,
        "adapter": adapter and str(adapter),
        "task": task.name if config.task == "auto" else config.task,
        **values,
        "shots": shots,
        "shots_shown": solved.mean if solved else 0.0,
        "peak_memory_bytes": memory.peak_bytes(),
        **({"shown": seen} if show else {}),
    }


def _without_a_start(config: MeZOConfig, objective: Objective) -> Objective:
    """A model by itself has no start to compare with: of "auto" that leaves the choice between the answers."""
    needs = isinstance(objective, PreferenceObjective) and objective.needs_reference
    return OBJECTIVES["candidate-ce"] if needs and config.objective == "auto" else objective


def _with_shots(
    dataset: MeZODataset, loaded: LoadedModel, config: MeZOConfig, shots: int, objective: Objective
) -> Demonstrated:
    """The examples behind demonstrations from the training split of the same data."""
    if dataset.split == "train":
        raise MezoError(
            "demonstrations are drawn from the split 'train': evaluate on another, or without shots"
        )
    if config.split_sizes is None and not has_splits(config.data, dataset.task):
        raise MezoError(
            f"{config.data}: demonstrations need a training split of their own, found one file;"
            " give a folder with train.jsonl and the split to evaluate on"
        )
    drawn = draw(training_set(config, dataset.task), shots, config.seed)
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    written = 0 if dataset.task.has_candidates else config.max_new_tokens
    room = min(config.max_length, context - written)
    return demonstrate(asking(dataset, objective), drawn, loaded.tokenizer, loaded.kind, room)
