"""One command-line option for every field of MeZOConfig.

Type, default and validation are the field's own; only the words for people are here.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.parsing import parse_yaml

WHAT, WHERE, METHOD, BUDGET = "What is tuned, on what", "Where it runs", "The method", "The budget"


class Words(NamedTuple):
    """How a field is spoken of; its flag is --its-name unless others are given."""

    panel: str
    help: str
    flags: tuple[str, ...] = ()


WORDS: dict[str, Words] = {
    "model": Words(WHAT, "Model folder, hub id, or smollm2-135m (built in).", ("--model", "-m")),
    "task": Words(
        WHAT, "Task by name (`mezo tasks` lists them), YAML file, or module:Class.", ("--task", "-t")
    ),
    "data": Words(WHAT, "Folder or JSONL file of examples; default: the task's own data.", ("--data", "-d")),
    "label_words": Words(
        WHAT, "Words that stand for the classes, by comma, in the task's order; default: its own."
    ),
    "template": Words(
        WHAT, "A prompt of your own with {field}s of the data; \\n is a new line. Default: the task's."
    ),
    "tuning": Words(WHAT, "Tune all weights, LoRA factors, a prefix of keys and values, or the head alone."),
    "train": Words(
        WHAT,
        "Tune only parameters whose names these regular expressions are found in, by comma: layers.2[0-9]",
    ),
    "lora_rank": Words(WHAT, "Rank of the LoRA factors."),
    "lora_alpha": Words(WHAT, "LoRA scale is alpha / rank."),
    "lora_targets": Words(WHAT, "Modules that get LoRA, by comma; default: query and value projections."),
    "prefix_tokens": Words(WHAT, "Tokens of the prefix."),
    "prefix_init": Words(WHAT, "What the prefix begins as: activations of random tokens, or noise."),
    "dtype": Words(WHAT, "Type of the weights in memory."),
    "device": Words(WHAT, "auto, cpu, cuda or cuda:N."),
    "trust_remote_code": Words(WHAT, "Run Python code that the model brings along."),
    "engine": Words(WHERE, "What computes: transformers, sglang, vllm, or http for running servers."),
    "tensor_parallel": Words(WHERE, "Processes that the model is cut into.", ("--tp",)),
    "parallel": Words(WHERE, "What processes started by torchrun share of a step."),
    "checksum_every": Words(WHERE, "Steps between comparisons of their weights; 0: never."),
    "rank_timeout": Words(WHERE, "Seconds to wait for another process."),
    "server": Words(WHERE, "Addresses of running servers, by comma, for engine http."),
    "server_args": Words(
        WHERE, "Options of the serving engine's own: key=value pairs by comma, or a YAML or JSON mapping."
    ),
    "estimator": Words(METHOD, "How losses become a projected gradient."),
    "num_directions": Words(METHOD, "Directions a step (n of n-SPSA).", ("--directions",)),
    "final_directions": Words(METHOD, "Let the number of directions grow linearly to this."),
    "epsilon": Words(METHOD, "Size of the perturbation."),
    "noise": Words(METHOD, "Distribution of the perturbation; low-rank: of matrices, from two thin factors."),
    "noise_rank": Words(METHOD, "Rank of low-rank noise."),
    "normalize_perturbations": Words(
        METHOD, "Divide each direction by its norm (needs another learning rate)."
    ),
    "blocks": Words(
        METHOD,
        "Layers that move: all together, some each step in turn or at random, or each with its own slope.",
    ),
    "layers_per_step": Words(METHOD, "Layers a step, of round-robin and random blocks."),
    "layer_scaling": Words(
        METHOD,
        "Perturb each tensor by the inverse of its norm: the paper's variance- or expectation-modified SPSA.",
    ),
    "cone_angle": Words(METHOD, "Angle in radians between directions and mean gradient, of estimator cone."),
    "cone_beta": Words(METHOD, "How much of its mean gradient estimator cone keeps a step."),
    "cone_warmup": Words(METHOD, "Steps over which that rises from 0.1."),
    "clip_projected_grad": Words(METHOD, "Bound on the magnitude of projected gradients."),
    "clip_quantile": Words(METHOD, "Bound projected gradients by this quantile of the last 100 magnitudes."),
    "optimizer": Words(METHOD, "Rule that turns projected gradients into an update."),
    "beta1": Words(METHOD, "How much of the mean gradient momentum and adam keep a step."),
    "beta2": Words(METHOD, "How much of the mean squared gradient adam keeps a step."),
    "adam_epsilon": Words(METHOD, "Added to the root of adam's mean squared gradient."),
    "history": Words(METHOD, "Steps from which momentum-rebuilt and adam-rebuilt make their moments."),
    "learning_rate": Words(METHOD, "Step size."),
    "schedule": Words(METHOD, "How the learning rate changes over the run."),
    "warmup_steps": Words(METHOD, "Steps over which the learning rate rises from 0."),
    "weight_decay": Words(METHOD, "Decoupled weight decay, times the learning rate."),
    "objective": Words(
        METHOD,
        "What is minimised: answer-ce, candidate-ce, accuracy, f1, rouge, or a reward of your own, "
        "module:function; auto: the loss over candidates where the task has them.",
    ),
    "max_new_tokens": Words(METHOD, "Tokens of an output, where the objective or a metric reads outputs."),
    "rounding": Words(METHOD, "Rounding of updates to 16-bit weights."),
    "memory": Words(METHOD, "Where perturbed weights and noise are held; see docs/memory.md."),
    "granularity": Words(METHOD, "Hold the noise of so much at a time in memory=regenerate."),
    "granularity_block": Words(METHOD, "Elements of a block of granularity=block."),
    "enable_kv_cache_optimization": Words(
        METHOD,
        "Compute tokens that begin several prompts of a batch once. On by default.",
        ("--kv-cache/--no-kv-cache",),
    ),
    "activation_cache_mb": Words(
        METHOD, "Megabytes for what comes out of layers below the lowest tuned one, kept across steps."
    ),
    "audit": Words(
        WHERE,
        "Compare some of the first batch, and of one after every snapshot, with the model's own forward pass. "
        "On by default.",
        ("--audit/--no-audit",),
    ),
    "disable_shortcuts": Words(
        WHERE,
        "Shortcuts through the model not to be taken, by comma: packing, sharing, stacking, lower-layers, head, "
        "products, or all.",
    ),
    "matmul": Words(
        WHERE,
        "What multiplies matrices on a CPU: torch, onednn, or float32 for 16-bit weights; auto measures it.",
    ),
    "num_steps": Words(BUDGET, "Updates.", ("--steps", "-n")),
    "batch_size": Words(BUDGET, "Examples a step.", ("--batch-size", "-b")),
    "gradient_accumulation": Words(BUDGET, "Microbatches a step, all at the same perturbation."),
    "max_length": Words(BUDGET, "Tokens an example may have; longer ones are cut."),
    "train_examples": Words(BUDGET, "Train on a random subset of this size."),
    "shots_per_class": Words(BUDGET, "Train on this many examples of every label."),
    "split_sizes": Words(
        BUDGET, "Draw train, validation and test of these sizes by seed; the paper: 1000,500,1000."
    ),
    "eval_examples": Words(BUDGET, "Evaluate on at most this many examples."),
    "eval_every": Words(BUDGET, "Evaluate every so many steps; 0: only before and after."),
    "seed": Words(BUDGET, "All randomness follows from it."),
    "snapshot_every": Words(
        BUDGET, "Steps between snapshots, from which --resume begins; 0: none. Default: 1,000, or 15 minutes."
    ),
    "stop_on_explosion": Words(
        BUDGET,
        "End a run whose loss has got worse than guessing and than 3 times its first. On by default.",
        ("--stop-on-explosion/--no-stop-on-explosion",),
    ),
}


def with_config(fields: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these config fields.

    The command's own `config` parameter (a MeZOConfig) is replaced by those options and `--config
    FILE`; it is called with the config built from both, in which flags win over the file. Where it has a
    `resume` parameter, the run given there is the file.
    """
    names = tuple(fields)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            file: Path | None = given.pop("config_file") or _settings_of(given.get("resume"))
            values = {name: given.pop(name) for name in names}
            changes = {name: _parsed(name, value) for name, value in values.items() if value is not None}
            config = MeZOConfig.load(file, **changes) if file else MeZOConfig.build(**changes)
            return command(config=config, **given)

        own = [p for name, p in inspect.signature(command).parameters.items() if name != "config"]
        file = inspect.Parameter(
            "config_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--config", "-c", help="YAML file of settings; flags win over it.", rich_help_panel=WHAT
                ),
            ],
        )
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + [
            file,
            *map(_option, names),
        ]
        run.__name__, run.__doc__ = command.__name__, paragraphs(command.__doc__ or "")
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _settings_of(run: Path | None) -> Path | None:
    """The settings of a run that is to be resumed, which flags are then a change of."""
    from mezo.runs.folder import RunFolder

    return None if run is None else RunFolder.begun(run).config


def paragraphs(doc: str) -> str:
    """A docstring without the line breaks inside its paragraphs: the terminal sets them anew."""
    return "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))


def _option(name: str) -> inspect.Parameter:
    field, words = MeZOConfig.model_fields[name], WORDS[name]
    kind, choices = _kind_of(field.annotation)
    text = words.help
    if choices:
        text += f" {', '.join(choices)}."
    if field.default not in (None, {}) and kind is not bool:
        text += f" [dim]\\[{field.default:g}][/dim]" if kind is float else f" [dim]\\[{field.default}][/dim]"
    option = typer.Option(
        # A boolean that is False by default has no --no- form: it would fill half the help.
        *(words.flags or (f"--{name.replace('_', '-')}",)),
        help=text,
        rich_help_panel=words.panel,
        show_default=False,
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind_of(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """What the command line reads a field as, and its choices; pydantic checks the rest."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    return (str, ()) if get_origin(annotation) in (tuple, dict) else (annotation, ())


def _parsed(name: str, value: Any) -> Any:
    if name == "template":
        return value.replace("\\n", "\n")  # a shell has no easy way to write a new line
    if name == "server_args":
        return mapping(value, name)
    annotation = MeZOConfig.model_fields[name].annotation
    is_list = any(get_origin(a) is tuple for a in (annotation, *get_args(annotation)))
    return tuple(part.strip() for part in value.split(",") if part.strip()) if is_list else value


def mapping(text: str, name: str) -> dict[str, Any]:
    """`a=1,b=text` or a YAML (so also a JSON) mapping, as a dict. Values are read as YAML has them.

    Raises MezoError for anything else.
    """
    if re.match(r"\s*[\w.-]+\s*=", text):
        pairs = [part.partition("=") for part in text.split(",")]
        if any(not key.strip() or not equals for key, equals, _ in pairs):
            raise MezoError(f"{name}={text!r}: expected key=value pairs with commas between them; {_AS_JSON}")
        text = "\n".join(f"{key.strip()}: {value.strip()}" for key, _, value in pairs)
    try:
        found = parse_yaml(text)
    except ValueError as error:
        raise MezoError(f"{name}: not a readable mapping: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise MezoError(
            f"{name}={text!r}: expected key=value pairs or a mapping, found {type(found).__name__}; {_AS_JSON}"
        )
    return {str(key): value for key, value in found.items()}


_AS_JSON = """values that have commas in them need JSON: {"name": [1, 2]}"""
