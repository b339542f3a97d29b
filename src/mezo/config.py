"""Every setting of a run, validated, with the paper's values as presets."""

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from mezo.errors import MezoError, near
from mezo.foreign import read_text
from mezo.parsing import dump_yaml, parse_yaml
from mezo.secrets import check_settings

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


class MeZOConfig(BaseModel):
    """The settings of one run. Saved as RUN/config.yaml; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # what is tuned, on what
    model: str = "smollm2-135m"  # a folder, a hub id, or the embedded default
    task: str = "sst2"
    data: str | None = None  # folder or file of examples; None: the task's own hub data set
    label_words: tuple[str, ...] | None = None  # of the classes, in the task's order; None: the task's own
    template: str | None = None  # a prompt of one's own: text with {field}, and {mask} for a masked model
    tuning: Literal["full", "lora", "prefix", "head"] = "full"
    train: tuple[str, ...] | None = None  # regular expressions that name the parameters; None: all of them
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: int = Field(default=16, ge=1)
    lora_targets: tuple[str, ...] | None = None  # None: the query and value projections
    prefix_tokens: int = Field(default=5, ge=1)
    prefix_init: Literal["activations", "random"] = "activations"  # of tokens drawn at random, or noise
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    trust_remote_code: bool = False

    # where it runs
    engine: str = "transformers"  # or sglang, vllm, http
    tensor_parallel: int = Field(default=1, ge=1)  # processes that the model is cut into
    # of the processes that torchrun starts: what they share of a step
    parallel: Literal["auto", "data", "directions", "both"] = "auto"
    checksum_every: int = Field(default=100, ge=0)  # steps between comparisons of their weights; 0: never
    rank_timeout: float = Field(default=600.0, gt=0)  # seconds to wait for another of them
    server: tuple[str, ...] | None = None  # addresses of running servers, of engine http
    server_args: dict[str, Any] = Field(default={})  # options of the serving engine's own

    # the method
    estimator: str = "two-point"
    num_directions: int = Field(default=1, ge=1)  # n of n-SPSA
    final_directions: int | None = Field(default=None, ge=1)  # n grows linearly to this over the run
    epsilon: float = Field(default=1e-3, gt=0)
    noise: Literal["gaussian", "rademacher", "low-rank"] = "gaussian"
    noise_rank: int = Field(default=2, ge=1, le=32)  # of low-rank noise
    normalize_perturbations: bool = False
    blocks: Literal["all", "round-robin", "random", "each"] = (
        "all"  # layers that move: some a step, or each alone
    )
    layers_per_step: int = Field(default=1, ge=1)  # of round-robin and random blocks
    layer_scaling: Literal["none", "variance", "expectation"] = "none"  # by parameter norms, appendix B
    cone_angle: float = Field(default=1.35, gt=0, le=math.pi / 2)  # radians, of estimator cone
    cone_beta: float = Field(default=0.99, ge=0, lt=1)  # of the running mean of gradients at its axis
    cone_warmup: int = Field(default=2000, ge=0)  # steps over which that rises from 0.1
    clip_projected_grad: float | None = Field(default=None, gt=0)  # bound on its magnitude
    clip_quantile: float | None = Field(default=None, gt=0, lt=1)  # bound: of the last 100 magnitudes
    optimizer: str = "sgd"
    beta1: float = Field(default=0.9, ge=0, lt=1)  # of the running mean of gradients: momentum, adam
    beta2: float = Field(default=0.95, ge=0, lt=1)  # of the running mean of their squares: adam
    adam_epsilon: float = Field(default=1e-8, gt=0)  # added to the root of it
    history: int = Field(default=64, ge=1)  # steps from which rebuilt moments are made
    learning_rate: float = Field(default=1e-6, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    objective: str = "auto"  # auto: candidates where the task has them, else answer tokens
    max_new_tokens: int = Field(
        default=32, ge=1
    )  # of an output, where the objective or a metric reads outputs
    rounding: Literal["matched", "stochastic", "nearest"] = "matched"  # of 16-bit weights
    memory: Literal["materialize", "regenerate", "store", "store-layer"] = "materialize"
    granularity: Literal["matrix", "block", "element"] | None = None  # of regenerate; None: not held at all
    granularity_block: int = Field(default=4096, ge=1)  # elements of a block

    # what is computed once; the losses are the same to rounding
    enable_kv_cache_optimization: bool = True  # tokens that begin several rows of a batch
    activation_cache_mb: int = Field(default=0, ge=0)  # kept across steps, from below the lowest tuned layer

    # the budget
    num_steps: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)  # microbatches of batch_size a step, at the same z
    max_length: int = Field(default=512, ge=8)
    train_examples: int | None = Field(default=None, ge=1)  # a fixed-size subset, by seed
    shots_per_class: int | None = Field(default=None, ge=1)  # k-shot: k examples of every label
    # (train, validation, test) drawn by seed, the paper's: 1000, 500, 1000; None: the data's own splits
    split_sizes: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    eval_examples: int | None = Field(default=None, ge=1)
    eval_every: int = Field(default=0, ge=0)  # steps; 0: only before and after
    seed: int = Field(default=0, ge=0, lt=2**64)
    # steps between what a killed run is resumed from; None: 1,000 or 15 minutes; 0: never, only replayed
    snapshot_every: int | None = Field(default=None, ge=0)
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
        return self

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
        """Read a YAML file; `changes` win over what it says."""
        try:
            values = parse_yaml(read_text(path, pipe=True))
        except (OSError, ValueError) as error:
            raise MezoError(f"{path}: not a readable YAML config: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise MezoError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
        try:
            return cls.build(**{**{str(key): value for key, value in values.items()}, **changes})
        except MezoError as error:
            raise MezoError(f"{path}: {error}") from None

    def to_yaml(self) -> str:
        return dump_yaml(self.model_dump(mode="json"))


def _one_line(error: ValidationError, fields: Any) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown setting {where!r}{near(where, fields)}")
        elif where:
            parts.append(f"{where}={item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)
