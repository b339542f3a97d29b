"""A LoRA adapter (Hu et al. 2021), by peft."""

import math
from typing import Any

import torch

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.noise import INITIALISATION, Where
from mezo.tuning.quiet import quiet_peft
from mezo.tuning.select import chosen
from mezo.weights import canonical

# The paper tunes queries and values (appendix E.5); the modules that hold them, by model type.
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


def lora(model: Any, config: MeZOConfig) -> Any:
    """A LoRA adapter on the query and value projections, or on `lora_targets`; of those, with `train`
    patterns, on the modules whose weights they name.

    A is drawn from the run's own noise stream instead of torch's generator, with the variance of
    the usual Kaiming-uniform start, so that it is the same on every device; B is zero.
    """
    from peft import LoraConfig, get_peft_model

    targets = list(config.lora_targets or lora_targets(model))
    first = _find(model, targets)
    if config.train is not None:
        targets = _named_by(model, targets, config.train)
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type=None,
        fan_in_fan_out=type(first).__name__ == "Conv1D",
    )
    with quiet_peft():
        tuned = get_peft_model(model, settings)
    _make_real(tuned)
    # what `load` takes; peft would write the folder it came from
    settings.base_model_name_or_path = config.model
    for name, tensor in tuned.named_parameters():
        if tensor.requires_grad and "lora_A" in name:
            flat = torch.empty(1, tensor.numel(), device=tensor.device)
            where = Where(noise.tensor_id(canonical(name)))
            noise.fill_(flat, where, config.seed, purpose=INITIALISATION)
            std = 1 / math.sqrt(3 * tensor.shape[1])  # of U(-1/sqrt(in), 1/sqrt(in))
            tensor.data.copy_((flat * std).view(tensor.shape))
    tuned.eval()
    return tuned


def _make_real(tuned: Any) -> None:
    """Give the factors memory where the model has none: a serving engine holds it, and they live here."""
    for module in tuned.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None and tensor.is_meta and tensor.requires_grad:
                module._parameters[name] = torch.nn.Parameter(torch.zeros_like(tensor, device="cpu"))


def lora_targets(model: Any) -> list[str]:
    """Names of the query and value projections of this architecture.

    Raises MezoError if none are known: then lora_targets must say.
    """
    known = _LORA_TARGETS.get(model.config.model_type, _LORA_COMMON)
    _find(model, known)
    return known


def _find(model: Any, targets: list[str]) -> Any:
    for name, module in model.named_modules():
        if _is_one_of(name, targets):
            return module
    linear = sorted(
        {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    )
    raise MezoError(
        f"no module of this {model.config.model_type!r} model is named {' or '.join(targets)}; "
        f"set lora_targets to some of: {', '.join(linear)}"
    )


def _named_by(model: Any, targets: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The full names of the target modules whose weights the patterns are found in."""
    weights = {f"{n}.weight": n for n, _ in model.named_modules() if _is_one_of(n, targets)}
    return [weights[name] for name in chosen(weights, patterns, of="LoRA target")]


def _is_one_of(name: str, targets: list[str]) -> bool:
    """As peft takes target_modules."""
    return any(name == target or name.endswith(f".{target}") for target in targets)
