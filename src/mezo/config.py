"""Every setting of a run, validated, with the paper's values as presets."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mezo.errors import MezoError, near
from mezo.util import plugins
from mezo.util.other_names import in_our_names
from mezo.util.parsing import dump_yaml
from mezo.util.plugin_names import named
from mezo.util.presets import PRESETS
from mezo.util.registry import names_in
from mezo.util.secrets import check_settings
from mezo.util.settings_text import brief, check_numbers, one_line, options_of, values_of
from mezo.util.writing import LINE, Writing

# Malladi et al. 2023, appendix E.3: of the learning rates searched, the middle one of RoBERTa-large's
# three (Table 15) and the larger of OPT's two; batch size and step count. RoBERTa's LoRA has weight
# decay 0.1.
_PAPER: dict[str, dict[str, dict[str, Any]]] = {
    "roberta": {
        "full": dict(learning_rate=1e-6, epsilon=1e-3, weight_decay=0.0),
        "lora": dict(learning_rate=5e-5, epsilon=1e-3, weight_decay=0.1),
        "prefix": dict(learning_rate=5e-3, epsilon=1e-1, weight_decay=0.0),
    },
    "opt": {
        "full": dict(learning_rate=1e-6, epsilon=1e-3, weight_decay=0.0),
        "lora": dict(learning_rate=1e-4, epsilon=1e-2, weight_decay=0.0),
        "prefix": dict(learning_rate=1e-2, epsilon=1e-1, weight_decay=0.0),
    },
}
_PAPER_COMMON: dict[str, dict[str, Any]] = {
    "roberta": dict(batch_size=64, num_steps=100_000),
    "opt": dict(batch_size=16, num_steps=20_000),
}


WHAT, WHERE, METHOD, BUDGET = "What is tuned, on what", "Where it runs", "The method", "The budget"


def setting(
    default: Any,
    panel: str,
    description: str,
    *,
    flags: Sequence[str] = (),
    choices: str | None = None,
    listed: str | None = None,
    **bounds: Any,
) -> Any:
    """A field of MeZOConfig, described once: for --help, the reference page and the ablation table.

    Args:
        panel: the part of --help that it stands in.
        flags: of the command line; without any, --its-name.
        choices: the registry that its names come from, as module:NAME.
        listed: a registry whose names end the description; they are no values.
        bounds: as pydantic takes them (ge, gt, le, lt).
    """
    extra: dict[str, Any] = {"panel": panel, "flags": list(flags), "choices": choices, "listed": listed}
    return Field(default=default, description=description, json_schema_extra=extra, **bounds)


Shortcut = Literal["packing", "sharing", "stacking", "lower-layers", "head", "products", "together", "all"]
# Upper bounds of counts and sizes: far above any run, and far below what fills a memory or a day by a slip of the hand.
MANY = 10**9
Size = Annotated[int, Field(ge=1, le=MANY)]
# Settings that run code or reach other machines. A file may be somebody else's, so from a file they do not count.
ASKED = ("server", "server_args", *plugins.KINDS)
# The context in which values of a file are read: to be run (what it names must exist), or to be looked at.
_TO_RUN, _TO_READ = {"file": "run"}, {"file": "read"}


class MeZOConfig(BaseModel):
    """The settings of one run; every field is described in `mezo train --help` and in the reference.

    Saved as RUN/config.yaml. Unknown fields are errors.

    Args:
        values: the fields by name. `MeZOConfig.build(**values)` reports a mistake in one line.

    Raises:
        MezoError: by `build`, `load` and `paper`: a value that a field does not take.

    Reference:
        Malladi et al. 2023, arXiv:2305.17333, appendix E.3: the values of `MeZOConfig.paper`.

    Example:
        >>> import mezo
        >>> config = mezo.MeZOConfig.build(task="sst2", tuning="lora", learning_rate=1e-3, num_steps=100)
        >>> config.epsilon
        0.001
        >>> mezo.MeZOConfig.paper("opt", "lora").learning_rate
        0.0001
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    model: str = setting(
        "smollm2-135m",
        WHAT,
        "Model folder, GGUF file, LoRA adapter folder, hub id, or smollm2-135m (built in).",
        flags=("--model", "-m"),
    )
    task: str = setting(
        "auto",
        WHAT,
        "Task by name (`mezo tasks` lists them), YAML file, or module:Class; auto: the one whose fields the rows have.",
        flags=("--task", "-t"),
    )
    data: str | None = setting(
        None,
        WHAT,
        "Examples: a file, a glob, a folder of train and validation files, a folder of save_to_disk, or a hub data set as "
        "name, name:config or name:config@revision; default: the task's own data. Files:",
        flags=("--data", "-d"),
        listed="mezo.data.formats:FORMATS",
    )
    data_format: str | None = setting(
        None,
        WHAT,
        "Format of the data's files, whatever their names end in.",
        choices="mezo.data.formats:FORMATS",
    )
    columns: dict[str, str] = setting(
        {}, WHAT, "Columns of the data that are the task's fields: prompt=instruction,completion=output."
    )
    splits: dict[str, str] = setting(
        {}, WHAT, "Splits of the data by its own names: train=train_sft,validation=test_sft."
    )
    chat_template: str | None = setting(
        None,
        WHAT,
        "Chat template of a model that has none, or another one: a Jinja file, or a name:",
        listed="mezo.data.chat_templates:CHAT_TEMPLATES",
    )
    turns: Literal["all", "last"] = setting(
        "all", WHAT, "Turns of the assistant to learn in a conversation: all of them, or the last."
    )
    append_eos: bool = setting(
        True,
        WHAT,
        "End the answers of chat, prompt-completion and other free-text rows with the model's end token. On by default.",
        flags=("--append-eos/--no-append-eos",),
    )
    parse_special: bool = setting(
        False, WHAT, "Take control tokens that are written out in the data, such as <|im_end|>, as such."
    )
    label_words: tuple[str, ...] | None = setting(
        None, WHAT, "Words that stand for the classes, by comma, in the task's order; default: its own."
    )
    template: str | None = setting(
        None, WHAT, "A prompt of your own with {field}s of the data; \\n is a new line. Default: the task's."
    )
    tuning: str = setting(
        "full",
        WHAT,
        "Tune all weights, LoRA factors, a prefix of keys and values, the head alone, or the normalisation layers.",
        choices="mezo.tuning:TUNING",
    )
    train: tuple[str, ...] | None = setting(
        None,
        WHAT,
        "Tune only parameters whose names match one of these regular expressions, by comma: layers.2[0-9]",
    )
    lora_rank: int = setting(8, WHAT, "Rank of the LoRA factors.", ge=1, le=1 << 16)
    lora_alpha: int = setting(16, WHAT, "LoRA scale is alpha / rank.", ge=1, le=1 << 20)
    lora_targets: tuple[str, ...] | None = setting(
        None, WHAT, "Modules that get LoRA, by comma; default: query and value projections."
    )
    prefix_tokens: int = setting(5, WHAT, "Tokens of the prefix.", ge=1, le=1 << 20)
    prefix_init: Literal["activations", "random"] = setting(
        "activations", WHAT, "Start of the prefix: activations of random tokens, or noise."
    )
    start: Literal["model", "linear-probe", "auto"] = setting(
        "model",
        METHOD,
        "Where the run begins: at the model as it is, or with its label words' rows fitted on frozen features; auto: fitted "
        "where that can be done.",
        flags=(
            "--start",
            "--start-from",
        ),  # torchrun takes --start for an abbreviation of its own --start-method
    )
    start_examples: int = setting(
        1000, METHOD, "Training examples that start=linear-probe fits the rows to, at most.", ge=2, le=1 << 20
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = setting(
        "float32", WHAT, "Type of the weights in memory; auto: that of the checkpoint."
    )
    quantize: Literal["nf4", "int8", "int4"] | None = setting(
        None,
        WHAT,
        "Hold the matrices of the base in 4 or 8 bits; lora, prefix, head and norms are tuned beside them.",
    )
    device: str = setting("auto", WHAT, "auto, cpu, cuda or cuda:N.")
    trust_remote_code: bool = setting(False, WHAT, "Run the model's own Python code.")
    engine: str = setting(
        "transformers",
        WHERE,
        "Engine that computes; http: running servers.",
        choices="mezo.engines.registry:ENGINES",
    )
    tensor_parallel: int = setting(
        1, WHERE, "Processes to cut the model over.", ge=1, le=1024, flags=("--tp",)
    )
    parallel: Literal["auto", "data", "directions", "both"] = setting(
        "auto", WHERE, "What torchrun's processes share of a step."
    )
    checksum_every: int = setting(
        100, WHERE, "Steps between comparisons of the processes' weights; 0: never.", ge=0, le=MANY
    )
    rank_timeout: float = setting(600.0, WHERE, "Seconds to wait for another process.", gt=0, le=1e7)
    server: tuple[str, ...] | None = setting(
        None, WHERE, "Addresses of running servers, by comma, for engine http."
    )
    server_args: dict[str, Any] = setting(
        {}, WHERE, "Options of the serving engine: key=value pairs by comma, or a YAML or JSON mapping."
    )
    estimator: str = setting(
        "two-point", METHOD, "How losses become a projected gradient.", choices="mezo.estimators:ESTIMATORS"
    )
    num_directions: int = setting(
        1, METHOD, "Directions a step (n of n-SPSA).", ge=1, le=1 << 15, flags=("--directions",)
    )
    final_directions: int | None = setting(
        None, METHOD, "Let the number of directions grow linearly to this.", ge=1, le=1 << 15
    )
    row_directions: int = setting(
        1,
        METHOD,
        "Directions a step, each probed on its own part of the batch, for the passes of one.",
        ge=1,
        le=1 << 15,
    )
    epsilon: float = setting(
        1e-3, METHOD, "Size of the perturbation.", gt=0, le=1e3, flags=("--epsilon", "--eps")
    )
    noise: Literal["gaussian", "rademacher", "low-rank", "rank-one"] = setting(
        "gaussian",
        METHOD,
        "Distribution of the perturbation; low-rank: two thin factors for each matrix; rank-one: two vectors of signs.",
    )
    noise_rank: int = setting(2, METHOD, "Rank of low-rank noise.", ge=1, le=32)
    normalize_perturbations: bool = setting(
        False, METHOD, "Divide each direction by its norm (needs another learning rate)."
    )
    blocks: Literal["all", "round-robin", "random", "each"] = setting(
        "all",
        METHOD,
        "Layers that move: all, some each step in turn or at random, or each with its own slope.",
    )
    layers_per_step: int = setting(
        1, METHOD, "Layers that move in a step, with blocks round-robin or random.", ge=1, le=1 << 16
    )
    layer_scaling: Literal["none", "variance", "expectation"] = setting(
        "none",
        METHOD,
        "Perturb each tensor by the inverse of its norm: the paper's variance- or expectation-modified SPSA.",
    )
    cone_angle: float = setting(
        1.35,
        METHOD,
        "Angle in radians between directions and mean gradient, for estimator cone.",
        gt=0,
        le=math.pi / 2,
    )
    cone_beta: float = setting(0.99, METHOD, "Decay of the mean gradient, for estimator cone.", ge=0, lt=1)
    cone_warmup: int = setting(2000, METHOD, "Steps over which cone_beta rises from 0.1.", ge=0, le=MANY)
    scores: Literal["z-score", "rank", "group", "none"] = setting(
        "z-score", METHOD, "How losses of a population become weights, for estimator es."
    )
    groups: int = setting(
        1,
        METHOD,
        "Groups of directions, each probed on its own part of the batch, with scores group.",
        ge=1,
        le=1 << 15,
    )
    clip_projected_grad: float | None = setting(
        None, METHOD, "Bound on the magnitude of projected gradients.", gt=0, le=1e12
    )
    clip_quantile: float | None = setting(
        None, METHOD, "Bound projected gradients by this quantile of the last 100 magnitudes.", gt=0, lt=1
    )
    optimizer: str = setting(
        "sgd",
        METHOD,
        "Rule that turns projected gradients into an update.",
        choices="mezo.optimizers:OPTIMIZERS",
    )
    beta1: float = setting(0.9, METHOD, "Decay of the mean gradient, for momentum and adam.", ge=0, lt=1)
    beta2: float = setting(0.95, METHOD, "Decay of the mean squared gradient, for adam.", ge=0, lt=1)
    adam_epsilon: float = setting(
        1e-8, METHOD, "Added to the root of adam's mean squared gradient.", gt=0, le=1e3
    )
    history: int = setting(
        64,
        METHOD,
        "Steps from which momentum-rebuilt and adam-rebuilt compute their moments.",
        ge=1,
        le=1 << 16,
    )
    learning_rate: Annotated[float, Field(ge=0, le=1e40)] | Literal["auto"] = setting(
        1e-6,
        METHOD,
        "Step size; auto: from the curvature that the probes measure. mezo train without one: auto, falling linearly, where the "
        "method allows it.",
        flags=("--learning-rate", "--lr"),
    )
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", METHOD, "How the learning rate changes over the run."
    )
    warmup_steps: int = setting(0, METHOD, "Steps over which the learning rate rises from 0.", ge=0, le=MANY)
    weight_decay: float = setting(
        0.0, METHOD, "Decoupled weight decay, times the learning rate.", ge=0, le=1e3
    )
    objective: str = setting(
        "auto",
        METHOD,
        "What to minimise; auto: the loss over candidates if the task has them. Also f1, rouge, a reward, your own (module:function), or a sum: 0.5*json + 0.5*length. Rewards:",
        choices="mezo.objectives:OBJECTIVES",
        listed="mezo.objectives.rewards:REWARDS",
    )
    reward_timeout: float | None = setting(
        None,
        WHERE,
        "Seconds that a reward function of your own may take for a row; it then runs in processes beside this one. Default: any time, in this one.",
        gt=0,
        le=1e6,
    )
    max_new_tokens: int = setting(
        32, METHOD, "Tokens of an output, for objectives and metrics of generated text.", ge=1, le=1 << 20
    )
    stop: tuple[str, ...] = setting(
        LINE,
        METHOD,
        "Strings that end an output, by comma or as a JSON list, \\n a new line; eos: its end token alone.",
    )
    prefill: str = setting(
        "", METHOD, "Text that every output begins with: the model goes on behind it, and both are judged."
    )
    temperature: float = setting(
        0.0, METHOD, "Temperature of the outputs of a step; 0: always the likeliest token.", ge=0, le=100
    )
    top_p: float = setting(
        1.0, METHOD, "Draw from the likeliest tokens that have this probability together.", gt=0, le=1
    )
    top_k: int = setting(
        0, METHOD, "Draw from so many of the likeliest tokens; 0: from all.", ge=0, le=1 << 20
    )
    samples: int = setting(
        1, METHOD, "Outputs of a step for each prompt, with a temperature above 0.", ge=1, le=1 << 16
    )
    rows_at_once: int = setting(
        256,
        WHERE,
        "Outputs that are written at once, where the probes of a step write together.",
        ge=1,
        le=1 << 20,
    )
    rounding: Literal["matched", "stochastic", "nearest"] = setting(
        "matched", METHOD, "Rounding of updates to 16-bit weights."
    )
    memory: Literal["materialize", "regenerate", "store", "store-layer"] = setting(
        "materialize", METHOD, "Where perturbed weights and noise are held; see docs/memory.md."
    )
    granularity: Literal["matrix", "block", "element"] | None = setting(
        None, METHOD, "Piece of the noise held at a time with memory=regenerate."
    )
    granularity_block: int = setting(
        4096, METHOD, "Elements of a block of granularity=block.", ge=1, le=1 << 30
    )
    enable_kv_cache_optimization: bool = setting(
        True,
        METHOD,
        "Compute shared beginnings of a batch's prompts once. On by default.",
        flags=("--kv-cache/--no-kv-cache",),
    )
    activation_cache_mb: int = setting(
        0,
        METHOD,
        "Megabytes to keep the output of layers below the lowest tuned one across steps.",
        ge=0,
        le=1 << 24,
    )
    audit: bool = setting(
        True,
        WHERE,
        "Compare rows of the first batch, and of one after every snapshot, with the model's own forward. On by default.",
        flags=("--audit/--no-audit",),
    )
    disable_shortcuts: tuple[Shortcut, ...] = setting(
        (),
        WHERE,
        "Shortcuts to turn off, by comma: packing, sharing, stacking, lower-layers, head, products, together, or all.",
    )
    matmul: Literal["auto", "torch", "onednn", "float32", "float32-onednn"] = setting(
        "auto",
        WHERE,
        "Matrix product on a CPU: torch, onednn, or float32 for 16-bit weights; auto measures it.",
    )
    num_steps: int = setting(10_000, BUDGET, "Number of updates.", ge=1, le=MANY, flags=("--steps", "-n"))
    batch_size: int = setting(
        64, BUDGET, "Examples a step.", ge=1, le=1 << 20, flags=("--batch-size", "--batch", "-b")
    )
    gradient_accumulation: int = setting(
        1, BUDGET, "Microbatches a step, all at the same perturbation.", ge=1, le=1 << 20
    )
    max_length: int = setting(
        512, BUDGET, "Tokens an example may have; longer ones are cut.", ge=8, le=1 << 24
    )
    train_examples: int | None = setting(
        None, BUDGET, "Train on a random subset of this size.", ge=1, le=MANY
    )
    shots_per_class: int | None = setting(
        None, BUDGET, "Train on this many examples of every label.", ge=1, le=MANY
    )
    split_sizes: tuple[Size, Size, Size] | str | None = setting(
        None,
        BUDGET,
        "Draw train, validation and test of these sizes (the paper: 1000,500,1000), or hold out a share: 10%.",
    )
    eval_examples: int | None = setting(
        None, BUDGET, "Evaluate on at most this many examples.", ge=1, le=MANY
    )
    metrics: tuple[str, ...] | None = setting(
        None,
        BUDGET,
        "Metrics to judge by, by comma, the headline one first; default: the task's own (`mezo tasks` lists all).",
    )
    eval_every: int = setting(
        0, BUDGET, "Evaluate every so many steps; 0: only before and after.", ge=0, le=MANY
    )
    show_samples: int = setting(
        4,
        BUDGET,
        "Outputs to show with their rewards, and to keep in RUN/samples.html, at each evaluation of a run by rewards.",
        ge=0,
        le=1000,
    )
    seed: int = setting(
        0,
        BUDGET,
        "Seed of all randomness but the choice of evaluation examples.",
        ge=0,
        lt=2**64,
    )
    eval_seed: int = setting(
        0,
        BUDGET,
        "Which examples are held out and evaluated on; the same for all runs that compare.",
        ge=0,
        lt=2**64,
    )
    snapshot_every: int | None = setting(
        None,
        BUDGET,
        "Steps between snapshots for --resume; 0: none. Default: 1,000, or 15 minutes.",
        ge=0,
        le=MANY,
    )
    stop_on_explosion: bool = setting(
        True,
        BUDGET,
        "Stop a run whose loss is worse than guessing and 3 times its first. On by default.",
        flags=("--stop-on-explosion/--no-stop-on-explosion",),
    )

    @model_validator(mode="before")
    @classmethod
    def _in_our_names(cls, values: Any, info: ValidationInfo) -> Any:
        """Names of other libraries become mezo's. Classes, functions and objects become names; names that are not from a file may be imported."""
        if not isinstance(values, dict):
            return values
        values = in_our_names(values, cls.model_fields)
        for name in plugins.KINDS.keys() & values.keys():
            given = values[name]
            values[name], own = _by_name(name, given)
            _check_settings_of(name, values[name])
            for key, value in own.items():
                if values.setdefault(key, value) != value:
                    raise ValueError(
                        f"{key}={values[key]!r}: {name}={given!r:.200} has {key}={value!r}: give one"
                    )
            if info.context is None:
                plugins.trust(name, values[name])
        return values

    @field_validator("tuning", "estimator", "engine", "metrics", "data_format")
    @classmethod
    def _is_registered(cls, value: Any, info: ValidationInfo) -> Any:
        """Said before a model is loaded. Not for `optimizer`: `mezo baseline finetune` has optimizers of its own."""
        setting = str(info.field_name)
        for name in value if isinstance(value, tuple) else [value]:
            names = plugins.choices(setting)
            known = name is None or name.partition("(")[0] in names
            if info.context != _TO_READ and not known and not plugins.is_import(setting, name):
                text = f"unknown {plugins.KINDS[setting].what} {name!r}{near(str(name), names)}"
                raise PydanticCustomError("name", "{text}", {"text": text})
        return value

    @field_validator("server_args", mode="before")
    @classmethod
    def _options_of_an_engine(cls, given: Any) -> Any:
        return options_of(given) if dataclasses.is_dataclass(given) and not isinstance(given, type) else given

    @field_validator("stop")
    @classmethod
    def _ends_somewhere(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty string is everywhere: expected text that ends an output, or eos")
        return () if value == ("eos",) else value

    @field_validator("split_sizes", mode="before")
    @classmethod
    def _is_sizes_or_a_share(cls, value: Any) -> Any:
        """From the command line, too: text, or a list of texts."""
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return parts
        if len(parts) == 1 and re.fullmatch(r"(?!0+(\.0*)?%)\d{1,2}(\.\d+)?%", str(parts[0]).strip()):
            return str(parts[0]).strip()
        if len(parts) != 3:
            shown = ",".join(map(str, parts))
            text = f"split_sizes={shown}: expected three sizes (train,validation,test) or a share such as 10%"
            raise PydanticCustomError("name", "{text}", {"text": text})
        return tuple(parts)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train_examples and self.shots_per_class:
            raise ValueError("train_examples and shots_per_class exclude each other: give one of them")
        if self.batch_size % self.row_directions:
            raise ValueError(
                f"row_directions={self.row_directions} does not divide batch_size={self.batch_size}: each direction is "
                "probed on an equal part of the batch; change one of them"
            )
        if self.warmup_steps >= self.num_steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} leaves no step of num_steps={self.num_steps}")
        check_settings(self.server, self.server_args)
        check_numbers("server_args", self.server_args)
        return self

    @field_serializer("trust_remote_code", when_used="json")
    def _trust_stays_here(self, _value: bool) -> bool:
        """What is saved travels, and no file may have another model's code run."""
        return False

    @property
    def writing(self) -> Writing:
        """How a step's outputs are written."""
        return Writing(self.max_new_tokens, self.stop, self.temperature, self.top_p, self.top_k, self.samples)

    @property
    def peak_rate(self) -> float:
        """The learning rate that the schedule multiplies: 1 where the estimator finds the rate."""
        return 1.0 if self.learning_rate == "auto" else self.learning_rate

    @property
    def saves_adapter(self) -> bool:
        """Whether a run ends with an adapter for the base model, and not with a model."""
        return self.tuning in ("lora", "prefix", "norms")

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A config from plain values; a mistake is a one-line MezoError."""
        return cls._checked(values, None)

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Self:
        """A config as a trajectory has it: code that it names is not run for that. Raises MezoError as `build` does."""
        return cls._checked({**values, "trust_remote_code": False}, _TO_READ)

    @classmethod
    def _checked(cls, values: Mapping[str, Any], context: Any) -> Self:
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise MezoError(one_line(error, cls.model_fields)) from None

    @classmethod
    def paper(
        cls, family: Literal["roberta", "opt"], tuning: Literal["full", "lora", "prefix"], **changes: Any
    ) -> Self:
        """The paper's hyperparameters; of several learning rates, the middle one or the larger of two.

        Raises MezoError if the family or the tuning mode is not one of the paper's.
        """
        if family not in _PAPER:
            raise MezoError(f"the paper has no family {family!r}{near(family, _PAPER)}")
        if tuning not in _PAPER[family]:
            raise MezoError(f"the paper has no tuning mode {tuning!r}{near(tuning, _PAPER[family])}")
        return cls.build(**{"tuning": tuning, **_PAPER_COMMON[family], **_PAPER[family][tuning], **changes})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The settings of a published run, with changes. Raises MezoError if there is no such preset."""
        if name not in PRESETS:
            raise MezoError(f"unknown preset {name!r}{near(name, PRESETS)}")
        return cls.build(**{**PRESETS[name], **changes})

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Self:
        """Read a YAML file of settings to run; `changes` win over what it says.

        The file may be somebody else's. Its `trust_remote_code` is ignored; servers to ask and code to import (ASKED) count
        only if `changes` has them too. Raises MezoError otherwise, and for whatever is not a config.
        """
        values = cls._in_file(path)
        for name, why in reaching(values).items():
            if name not in changes and not (name in plugins.KINDS and plugins.is_allowed(values[name])):
                also = " (or --plugin with it)" if name in plugins.KINDS else ""
                raise MezoError(
                    f"{path}: {name}={brief(values[name])} {why}, which a file cannot ask for: if you trust it, give "
                    f"--{name.replace('_', '-')} yourself{also}"
                )
        given = {name: _by_name(name, value)[0] for name, value in changes.items() if name in plugins.KINDS}
        for name, value in given.items():
            plugins.trust(name, value)
        return cls._of(path, {**values, **changes, **given}, _TO_RUN)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file says, to compare or to show, and not to run. Raises MezoError if it is not a config."""
        return cls._of(path, cls._in_file(path), _TO_READ)

    @classmethod
    def _in_file(cls, path: Path) -> dict[str, Any]:
        try:
            return in_our_names(values_of(path), cls.model_fields)
        except MezoError:
            raise
        except ValueError as error:
            raise MezoError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, path: Path, values: dict[str, Any], context: Any) -> Self:
        try:
            return cls._checked(values, context)
        except MezoError as error:
            raise MezoError(f"{path}: {error}") from None

    def to_yaml(self) -> str:
        return dump_yaml(self.model_dump(mode="json"))


def choices_of(name: str) -> tuple[str, ...]:
    """The names that a setting may have: those in its registry, or those of its type; () where there is no list."""
    field = MeZOConfig.model_fields[name]
    extra: Any = field.json_schema_extra
    if extra["choices"]:
        return plugins.choices(name) if name in plugins.KINDS else names_in(extra["choices"])
    found = (field.annotation, *get_args(field.annotation))
    if any(get_origin(kind) is Annotated for kind in found):
        return ()  # a number, or the word that the description names
    return tuple(choice for kind in found if get_origin(kind) is Literal for choice in get_args(kind))


def reaching(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings among `values` that run code or reach other machines, and what each does."""
    found = {name: "reaches other machines" for name in ("server", "server_args") if values.get(name)}
    if "server_args" in found:
        found["server_args"] = "sets options of a serving engine"
    if any(name.startswith("judge(") for name in plugins.each_name(values.get("objective") or "")):
        found["objective"] = "reaches other machines"
    found |= {
        name: "imports Python code" for name in plugins.KINDS if plugins.is_import(name, values.get(name))
    }
    return {name: found[name] for name in ASKED if name in found}


def _by_name(setting: str, value: Any) -> tuple[Any, dict[str, Any]]:
    """The value with names in place of classes, functions and objects; and what these say of other settings."""
    if value is not None and setting == "metrics":
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(each if isinstance(each, str) else named(setting, each)[0] for each in several), {}
    if value is None or isinstance(value, str):
        return value, {}
    if isinstance(value, bool | int | float | list | tuple | dict):
        return value, {}  # no entry of any kind: the field says so
    return named(setting, value, MeZOConfig.model_fields if setting in _SHARING else ())


_SHARING = ("estimator", "optimizer")  # whose settings with the name of one of the run are that one


def _check_settings_of(setting: str, value: Any) -> None:
    if setting in _SHARING and isinstance(value, str):
        for name in plugins.split(value)[1].keys() & MeZOConfig.model_fields.keys():
            raise ValueError(f"{setting}={value!r}: {name} is a setting of the run: give {name}= to that")
