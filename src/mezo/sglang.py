"""MeZO where SGLang is: `mezo_finetune` on SGLang's engine, and `MeZOTrainer` on its ModelRunner in this process.

Install the package into SGLang's environment for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mezo import api
from mezo.config import MeZOConfig
from mezo.data.chat_templates import with_chat_template
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.engines.serving.meta_model import outline
from mezo.engines.sglang.in_process import ModelRunnerBackend
from mezo.errors import MezoError
from mezo.models.load import describe
from mezo.runs.notebook import default_observer
from mezo.training import trainer
from mezo.training.trainer import TrainResult
from mezo.tuning.adapter_files import settings_of
from mezo.util.other_names import in_our_names
from mezo.weights.weights import Weights

__all__ = ["MeZOTrainer", "RunnerTrainer", "mezo_finetune"]

# Settings of an adapter that make another function of its matrices.
_PLAIN = (
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "bias",
    "lora_bias",
    "trainable_token_indices",
)
_PREFIX = "base_model.model."  # what peft puts before the names in adapter_model.safetensors


def mezo_finetune(model_path: str, train_dataset: Any, **settings: Any) -> TrainResult:
    """`mezo.mezo_finetune` on SGLang's engine; on transformers for masked language models, which SGLang does not serve.

    Args:
        model_path: a folder or a hub id.
        train_dataset: see `mezo.mezo_finetune`.
        settings: see `mezo.mezo_finetune`.

    Returns:
        What the run came to.

    Raises:
        MezoError: a setting, the data or the model cannot be used, or SGLang is not installed.

    Reference:
        Malladi et al. 2023, arXiv:2305.17333, Algorithm 1.

    Example:
        >>> from mezo.sglang import mezo_finetune
        >>> result = mezo_finetune("./my-model", "tickets.jsonl", learning_rate=1e-3, num_steps=3)  # doctest: +SKIP
    """
    if (
        "engine" not in settings
        and describe(str(model_path), bool(settings.get("trust_remote_code"))).kind == "causal"
    ):
        settings["engine"] = "sglang"
    return api.mezo_finetune(model_path, train_dataset, **settings)


@dataclass(frozen=True)
class AdapterStart:
    """An adapter that is tuned further.

    Args:
        settings: rank, alpha and targets, as MeZOConfig names them.
        tensors: by the names that tuned tensors have.
    """

    settings: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> "AdapterStart":
        """The adapter of a folder. Raises MezoError if it is no LoRA adapter."""
        found: Mapping[str, Any] = settings_of(folder)
        other = [name for name in _PLAIN if found.get(name) not in (None, False, "none", {}, [])]
        if found.get("peft_type") != "LORA" or other:
            what = (
                f"{other[0]}={found[other[0]]!r:.60}"
                if other
                else f"peft_type={found.get('peft_type')!r:.60}"
            )
            raise MezoError(
                f"{folder}: an adapter with {what}, which is not tuned in SGLang: tune it on transformers"
            )
        targets = found.get("target_modules")
        settings = {
            "lora_rank": found.get("r"),
            "lora_alpha": found.get("lora_alpha"),
            "lora_targets": sorted(targets) if isinstance(targets, list | tuple | set) else targets,
        }
        try:
            tensors = load_file(folder / "adapter_model.safetensors")
        except (OSError, SafetensorError) as error:
            raise MezoError(f"{folder / 'adapter_model.safetensors'}: cannot be read: {error}") from None
        return cls(settings, {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()})

    @classmethod
    def of(cls, running: trainer.MeZOTrainer) -> "AdapterStart":
        """What a run has come to."""
        settings = {
            name: getattr(running.config, name) for name in ("lora_rank", "lora_alpha", "lora_targets")
        }
        return cls(settings, {t.name: t.tensor.detach().clone() for t in running.weights.tunables})


class RunnerTrainer:
    """Tunes a LoRA adapter in SGLang's own ModelRunner, in the process that holds it.

    Every probe is an adapter in the manager's memory pool, and its loss comes from the runner's forward pass. No
    scheduler may use the runner meanwhile.

    Args:
        model_runner: SGLang's, with its memory pools, started with enable_lora=True.
        lora_manager: the runner's.
        lora_name: the adapter to tune. One that is loaded from a folder is tuned further; under any other name a new
            adapter is made. The tuned adapter is left in the manager under this name.
        tokenizer: the model's.
        enable_kv_cache_optimization: rows that begin alike are computed once, by SGLang's radix cache.
        normalize_perturbations: directions of unit length.

    Raises:
        MezoError: the runner has no LoRA manager or is one of several parts, or the loaded adapter cannot be read.

    Example:
        >>> from mezo.sglang import MeZOTrainer
        >>> trainer = MeZOTrainer(runner, runner.lora_manager, "tickets", tokenizer)  # doctest: +SKIP
        >>> result = trainer.train("tickets.jsonl", learning_rate=1e-3, num_steps=1000)  # doctest: +SKIP
    """

    def __init__(
        self,
        model_runner: Any,
        lora_manager: Any,
        lora_name: str,
        tokenizer: Any,
        enable_kv_cache_optimization: bool = True,
        normalize_perturbations: bool = False,
    ) -> None:
        self.runner, self.name, self.tokenizer = model_runner, lora_name, tokenizer
        self.lora = lora_manager or model_runner.lora_manager
        self._cache = enable_kv_cache_optimization
        self._backend()  # says what is missing
        self._left: AdapterStart | None = None
        self.settings = {
            "enable_kv_cache_optimization": enable_kv_cache_optimization,
            "normalize_perturbations": normalize_perturbations,
        }

    def train(self, train_dataset: Any, validation_dataset: Any = None, **settings: Any) -> TrainResult:
        """Tune the adapter, and leave it in the manager.

        Args:
            train_dataset: see `mezo.mezo_finetune`.
            validation_dataset: to evaluate on; by default the validation split of the data, if they have one.
            settings: fields of MeZOConfig; output, observer and the like, as `mezo.MeZOTrainer` takes them.

        Returns:
            What the run came to.

        Raises:
            MezoError: a setting or the data cannot be used, or SGLang refuses the adapter.
        """
        start, backend = self._start(), self._backend()
        options = {name: settings.pop(name) for name in api.TRAINER_ARGUMENTS if name in settings}
        if taken := [
            name for name in ("resume", "fork", "model", "tokenizer") if options.get(name) is not None
        ]:
            raise MezoError(f"{taken[0]}= is not taken here: mezo.mezo_finetune(..., engine='sglang') has it")
        try:
            settings = in_our_names(settings, MeZOConfig.model_fields)
        except ValueError as error:
            raise MezoError(str(error)) from None
        if start is not None and options.get("output") is not None:
            raise MezoError(
                f"adapter {self.name!r} was there before, so a trajectory could not make its weights again: leave output= "
                "out, or tune under a new name"
            )
        config = MeZOConfig.build(
            **{
                "model": str(self.runner.model_config.model_path),
                "dtype": str(self.runner.dtype).removeprefix("torch."),
                "engine": "sglang",
                "tuning": "lora",
                "lora_rank": min(8, int(self.lora.max_lora_rank)),
                "task": "auto",
                **self.settings,
                **({} if start is None else start.settings),
                **settings,
            }
        )
        observer = options.get("observer") or default_observer()
        tokenizer = with_chat_template(self.tokenizer, config.chat_template)
        served = replace(outline(config, observer.on_note), tokenizer=tokenizer, backend=backend)
        train = training_set(config, task_of(config, train_dataset), train_dataset)
        validation = validation_set(
            config, train.task, train_dataset if validation_dataset is None else validation_dataset
        )
        options |= {"observer": observer, "model": served, "tokenizer": tokenizer}
        running = trainer.MeZOTrainer(config, train=train, validation=validation, **options)
        if start is not None:
            _fill(running.weights, start)
        try:
            result = running.train()
            self._left = AdapterStart.of(running)  # kept here, too, should SGLang refuse it
            for ref in self._refs():  # it takes no second one of a name
                self.lora.unload_lora_adapter(ref)
            running.engine.serve(self.name)
        finally:
            running.close()
        return result

    def _backend(self) -> ModelRunnerBackend:
        return ModelRunnerBackend(self.runner, self.lora, self.tokenizer, cache=self._cache)

    def _refs(self) -> list[Any]:
        return [ref for ref in self.lora.lora_refs.values() if ref.lora_name == self.name]

    def _start(self) -> "AdapterStart | None":
        """The adapter of this name, if it is loaded: as this trainer left it, or as its folder has it."""
        if self._left is not None:
            return self._left
        for ref in self._refs():
            folder = Path(ref.lora_path)
            if not (folder / "adapter_config.json").is_file():
                raise MezoError(
                    f"adapter {self.name!r} is loaded, and not from a folder ({ref.lora_path}), so its weights cannot be read "
                    "as peft has them: tune under a new name"
                )
            return AdapterStart.read(folder)
        return None


MeZOTrainer = RunnerTrainer


def _fill(weights: Weights, start: AdapterStart) -> None:
    names = {tunable.name for tunable in weights.tunables}
    if extra := sorted(start.tensors.keys() - names):
        raise MezoError(f"the adapter has a tensor {extra[0]}, which this model has no place for")
    for tunable in weights.tunables:
        tensor = start.tensors.get(tunable.name)
        if tensor is None or tensor.shape != tunable.tensor.shape:
            raise MezoError(
                f"the adapter has no tensor {tunable.name} of shape {tuple(tunable.tensor.shape)}"
            )
        tunable.tensor.data.copy_(tensor)
