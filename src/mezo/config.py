"""Every setting of a run, validated, with the paper's values as presets."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, model_validator

from mezo.errors import MezoError, near
from mezo.util.foreign import read_text
from mezo.util.parsing import dump_yaml, parse_yaml
from mezo.util.secrets import check_settings

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


Shortcut = Literal["packing", "sharing", "stacking", "lower-layers", "head", "products", "all"]
# Upper bounds of counts and sizes: far above any run, and far below what fills a memory or a day by a slip of the hand.
MANY = 10**9
Size = Annotated[int, Field(ge=1, le=MANY)]
# Settings that run code or reach other machines. A file may be somebody else's, so from a file they do not count.
ASKED = ("server", "server_args", "task", "objective")


class MeZOConfig(BaseModel):
    """The settings of one run. Saved as RUN/config.yaml; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    # what is tuned, on what
    model: str = "smollm2-135m"  # a folder, a hub id, or the embedded default
    task: str = "sst2"
    data: str | None = None  # folder or file of examples; None: the task's own hub data set
    label_words: tuple[str, ...] | None = None  # of the classes, in the task's order; None: the task's own
    template: str | None = None  # a custom prompt: text with {field}, and {mask} for a masked model
    tuning: Literal["full", "lora", "prefix", "head"] = "full"
    train: tuple[str, ...] | None = None  # regular expressions that name the parameters; None: all of them
    lora_rank: int = Field(default=8, ge=1, le=1 << 16)
    lora_alpha: int = Field(default=16, ge=1, le=1 << 20)
    lora_targets: tuple[str, ...] | None = None  # None: the query and value projections
    prefix_tokens: int = Field(default=5, ge=1, le=1 << 20)
    prefix_init: Literal["activations", "random"] = "activations"  # of tokens drawn at random, or noise
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    trust_remote_code: bool = False

    # where it runs
    engine: str = "transformers"  # or sglang, vllm, http
    tensor_parallel: int = Field(default=1, ge=1, le=1024)  # processes that the model is cut into
    # of the processes that torchrun starts: what they share of a step
    parallel: Literal["auto", "data", "directions", "both"] = "auto"
    checksum_every: int = Field(
        default=100, ge=0, le=MANY
    )  # steps between comparisons of their weights; 0: never
    rank_timeout: float = Field(default=600.0, gt=0, le=1e7)  # seconds to wait for another of them
    server: tuple[str, ...] | None = None  # addresses of running servers, of engine http
    server_args: dict[str, Any] = Field(default={})  # options of the serving engine's own

    # the method
    estimator: str = "two-point"
    num_directions: int = Field(default=1, ge=1, le=1 << 15)  # n of n-SPSA
    final_directions: int | None = Field(
        default=None, ge=1, le=1 << 15
    )  # n grows linearly to this over the run
    epsilon: float = Field(default=1e-3, gt=0, le=1e3)
    noise: Literal["gaussian", "rademacher", "low-rank"] = "gaussian"
    noise_rank: int = Field(default=2, ge=1, le=32)  # of low-rank noise
    normalize_perturbations: bool = False
    blocks: Literal["all", "round-robin", "random", "each"] = (
        "all"  # layers that move: some a step, or each alone
    )
    layers_per_step: int = Field(default=1, ge=1, le=1 << 16)  # of round-robin and random blocks
    layer_scaling: Literal["none", "variance", "expectation"] = "none"  # by parameter norms, appendix B
    cone_angle: float = Field(default=1.35, gt=0, le=math.pi / 2)  # radians, of estimator cone
    cone_beta: float = Field(default=0.99, ge=0, lt=1)  # of the running mean of gradients at its axis
    cone_warmup: int = Field(default=2000, ge=0, le=MANY)  # steps over which that rises from 0.1
    clip_projected_grad: float | None = Field(default=None, gt=0, le=1e12)  # bound on its magnitude
    clip_quantile: float | None = Field(default=None, gt=0, lt=1)  # bound: of the last 100 magnitudes
    optimizer: str = "sgd"
    beta1: float = Field(default=0.9, ge=0, lt=1)  # of the running mean of gradients: momentum, adam
    beta2: float = Field(default=0.95, ge=0, lt=1)  # of the running mean of their squares: adam
    adam_epsilon: float = Field(default=1e-8, gt=0, le=1e3)  # added to the root of it
    history: int = Field(default=64, ge=1, le=1 << 16)  # steps from which rebuilt moments are made
    # no bound of sense: a rate far too large diverges at once, and the run says so
    learning_rate: float = Field(default=1e-6, ge=0, le=1e40)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0, le=MANY)
    weight_decay: float = Field(default=0.0, ge=0, le=1e3)
    objective: str = "auto"  # auto: candidates where the task has them, else answer tokens
    max_new_tokens: int = Field(
        default=32, ge=1, le=1 << 20
    )  # of an output, where the objective or a metric reads outputs
    rounding: Literal["matched", "stochastic", "nearest"] = "matched"  # of 16-bit weights
    memory: Literal["materialize", "regenerate", "store", "store-layer"] = "materialize"
    granularity: Literal["matrix", "block", "element"] | None = None  # of regenerate; None: not held at all
    granularity_block: int = Field(default=4096, ge=1, le=1 << 30)  # elements of a block

    # what is computed once; the losses are the same to rounding
    enable_kv_cache_optimization: bool = True  # tokens that begin several rows of a batch
    activation_cache_mb: int = Field(
        default=0, ge=0, le=1 << 24
    )  # kept across steps, from below the lowest tuned layer
    audit: bool = True  # compare the first batch, and one after every snapshot, with the model's own forward
    disable_shortcuts: tuple[Shortcut, ...] = ()  # even where they agree with it
    # what multiplies matrices: "auto" measures it once, and a run keeps what it began with
    matmul: Literal["auto", "torch", "onednn", "float32", "float32-onednn"] = "auto"

    # the budget
    num_steps: int = Field(default=10_000, ge=1, le=MANY)
    batch_size: int = Field(default=64, ge=1, le=1 << 20)
    gradient_accumulation: int = Field(
        default=1, ge=1, le=1 << 20
    )  # microbatches of batch_size a step, at the same z
    max_length: int = Field(default=512, ge=8, le=1 << 24)
    train_examples: int | None = Field(default=None, ge=1, le=MANY)  # a fixed-size subset, by seed
    shots_per_class: int | None = Field(default=None, ge=1, le=MANY)  # k-shot: k examples of every label
    # (train, validation, test) drawn by seed, the paper's: 1000, 500, 1000; None: the data's own splits
    split_sizes: tuple[Size, Size, Size] | None = None
    eval_examples: int | None = Field(default=None, ge=1, le=MANY)
    eval_every: int = Field(default=0, ge=0, le=MANY)  # steps; 0: only before and after
    seed: int = Field(default=0, ge=0, lt=2**64)
    # steps between what a killed run is resumed from; None: 1,000 or 15 minutes; 0: never, only replayed
    snapshot_every: int | None = Field(default=None, ge=0, le=MANY)
    stop_on_explosion: bool = (
        True  # a loss that is finite, and worse than guessing and than 3 times its first
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train_examples and self.shots_per_class:
            raise ValueError("train_examples and shots_per_class exclude each other: give one of them")
        if self.warmup_steps >= self.num_steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} leaves no step of num_steps={self.num_steps}")
        check_settings(self.server, self.server_args)
        _check_numbers("server_args", self.server_args)
        return self

    @field_serializer("trust_remote_code", when_used="json")
    def _trust_stays_here(self, _value: bool) -> bool:
        """What is saved travels, and no file may have another model's code run."""
        return False

    @property
    def saves_adapter(self) -> bool:
        """Whether a run ends with an adapter for the base model, and not with a model."""
        return self.tuning in ("lora", "prefix")

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A config from plain values; a mistake is a one-line MezoError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise MezoError(_one_line(error, cls.model_fields)) from None

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
    def load(cls, path: Path, **changes: Any) -> Self:
        """Read a YAML file of settings to run; `changes` win over what it says.

        The file may be somebody else's. Its `trust_remote_code` is ignored; servers to ask and code to import (ASKED) count
        only if `changes` has them too. Raises MezoError otherwise, and for whatever is not a config.
        """
        values = _values_of(path)
        for name, why in reaching(values).items():
            if name not in changes:
                raise MezoError(
                    f"{path}: {name}={_brief(values[name])} {why}, which a file cannot ask for: if you trust it, give "
                    f"--{name.replace('_', '-')} yourself"
                )
        return cls._of(path, {**values, **changes})

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a file says, to compare or to show, and not to run. Raises MezoError if it is not a config."""
        return cls._of(path, _values_of(path))

    @classmethod
    def _of(cls, path: Path, values: dict[str, Any]) -> Self:
        try:
            return cls.build(**values)
        except MezoError as error:
            raise MezoError(f"{path}: {error}") from None

    def to_yaml(self) -> str:
        return dump_yaml(self.model_dump(mode="json"))


def reaching(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings among `values` that run code or reach other machines, and what each does."""
    found = {name: "reaches other machines" for name in ("server", "server_args") if values.get(name)}
    if "server_args" in found:
        found["server_args"] = "sets options of a serving engine"
    found |= {
        name: "imports Python code" for name in ("task", "objective") if is_import(name, values.get(name))
    }
    return {name: found[name] for name in ASKED if name in found}


def is_import(name: str, value: Any) -> bool:
    """Whether a task or an objective is given as module:name, which is imported and so run."""
    text = str(value)
    if ":" not in text or name not in ("task", "objective"):
        return False
    return not (text.startswith("rouge:") if name == "objective" else text.endswith((".yaml", ".yml")))


def _values_of(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, without what counts only from a person."""
    try:
        values = parse_yaml(read_text(path, pipe=True))
    except (OSError, ValueError) as error:
        raise MezoError(f"{path}: not a readable YAML config: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MezoError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return {str(key): value for key, value in values.items() if key != "trust_remote_code"}


def _check_numbers(name: str, value: Any) -> None:
    """Raises ValueError for a number inside of options that no engine means."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_numbers(name, inner)
    elif isinstance(value, int | float) and not -(2**63) <= value < 2**64:  # NaN is not in between either
        raise ValueError(f"{name}: expected a finite number of 64 bits, found {_brief(value)}")


def _brief(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _one_line(error: ValidationError, fields: Any) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown setting {where!r}{near(where, fields)}")
        elif where:
            parts.append(f"{where}={_brief(item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)
