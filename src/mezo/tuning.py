"""Which tensors are tuned: all of them, or a LoRA adapter's. One function a mode."""

import contextlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models import quiet
from mezo.noise import Where
from mezo.weights import Weights, canonical

_INITIALISATION = 2  # the purpose word of the noise stream that draws initial values

# The paper tunes queries and values (appendix D.3); the modules that hold them, by model type.
_LORA_TARGETS = {
    "gpt2": ["c_attn"],
    "gpt_neox": ["query_key_value"],
    "bloom": ["query_key_value"],
    "falcon": ["query_key_value"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "electra": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "deberta-v2": ["query_proj", "value_proj"],
    "phi3": ["qkv_proj"],
    "modernbert": ["Wqkv"],
}
_LORA_COMMON = ["q_proj", "v_proj"]  # OPT, Llama, Mistral, Qwen, Gemma, GPT-J, ...


def full(model: Any, config: MeZOConfig) -> Any:
    """Every parameter of the model."""
    model.requires_grad_(True)
    return model


def lora(model: Any, config: MeZOConfig) -> Any:
    """A LoRA adapter on the query and value projections (Hu et al. 2021), by peft.

    A is drawn from the run's own noise stream instead of torch's generator, with the variance of
    the usual Kaiming-uniform start, so that it is the same on every device; B is zero.
    """
    from peft import LoraConfig, get_peft_model

    targets = list(config.lora_targets or lora_targets(model))
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type=None,
        fan_in_fan_out=type(_find(model, targets)).__name__ == "Conv1D",
    )
    with _quiet_peft():
        tuned = get_peft_model(model, settings)
    settings.base_model_name_or_path = (
        config.model
    )  # what `load` takes; peft would write the folder it came from
    for name, tensor in tuned.named_parameters():
        if tensor.requires_grad and "lora_A" in name:
            flat = torch.empty(1, tensor.numel(), device=tensor.device)
            where = Where(noise.tensor_id(canonical(name)))
            noise.fill_(flat, where, config.seed, purpose=_INITIALISATION)
            std = 1 / math.sqrt(3 * tensor.shape[1])  # of U(-1/sqrt(in), 1/sqrt(in))
            tensor.data.copy_((flat * std).view(tensor.shape))
    tuned.eval()
    return tuned


def lora_targets(model: Any) -> list[str]:
    """Names of the query and value projections of this architecture.

    Raises MezoError if none are known: then lora_targets must say.
    """
    known = _LORA_TARGETS.get(model.config.model_type, _LORA_COMMON)
    _find(model, known)
    return known


def _find(model: Any, targets: list[str]) -> Any:
    for name, module in model.named_modules():
        if any(name == target or name.endswith(f".{target}") for target in targets):
            return module
    linear = sorted(
        {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    )
    raise MezoError(
        f"no module of this {model.config.model_type!r} model is named {' or '.join(targets)}; "
        f"set lora_targets to some of: {', '.join(linear)}"
    )


TUNING: dict[str, Callable[[Any, MeZOConfig], Any]] = {
    "full": full,
    "lora": lora,
}


def tune(model: Any, config: MeZOConfig) -> tuple[Any, Weights]:
    """The model made ready for the config's tuning mode, and the weights that are tuned.

    Raises MezoError for a mode that is not there.
    """
    from mezo.registry import look_up

    ready = look_up(TUNING, config.tuning, "tuning mode")(model, config)
    named = [(name, p) for name, p in ready.named_parameters() if p.requires_grad]
    weights = Weights(named, kind=config.noise)
    ready.requires_grad_(False)
    return ready, weights


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5 for a property by its old name; its user can do nothing about that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with a saved peft adapter on it. Raises MezoError if it is not one for this model."""
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise MezoError(
            f"{folder}: expected a peft adapter (adapter_config.json and adapter_model.safetensors)"
        )
    try:
        with _quiet_peft():
            return PeftModel.from_pretrained(model, str(folder)).eval().requires_grad_(False)
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        raise MezoError(
            f"{folder}: this adapter does not fit the model: {' '.join(str(error).split())[:300]}"
        ) from None


def save(model: Any, tokenizer: Any, target: Path) -> None:
    """Write a tuned model, or its adapter, in the formats transformers and peft load.

    Into a folder beside `target`, then rename: never half a model under the final name.
    """
    temporary = target.with_name(f".{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        # peft would ask the hub whether the base model's embeddings were resized: they never are here
        own = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        with quiet():
            model.save_pretrained(temporary, **own)
        if not hasattr(model, "peft_config"):
            tokenizer.save_pretrained(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise MezoError(f"{target}: cannot save the weights: {error}") from None
