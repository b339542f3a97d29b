"""A LoRA adapter (Hu et al. 2021), by peft."""

import math
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from mezo import noise
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models.names import public_name
from mezo.models.offloaded import device_of
from mezo.noise import INITIALISATION
from mezo.noise.where import Where
from mezo.tuning.label_rows import LabelRows, has_rows, hold_rows, lora_settings
from mezo.tuning.peft_warnings import quiet_peft
from mezo.tuning.select import chosen, is_target
from mezo.weights.tunable import canonical

# The paper tunes queries and values (appendix E.5). The modules that hold them, by model type where their names
# alone would not tell.
_LORA_TARGETS = {
    "gpt2": ["c_attn"],
    "deberta": ["in_proj"],
    "jetmoe": ["kv_proj"],  # queries are made by experts
    # hybrids: two kinds of layers
    "bailing_hybrid": ["q_proj", "kv_b_proj", "v_proj"],
    "kimi_linear": ["q_proj", "q_b_proj", "kv_b_proj", "v_proj"],
    "minimax": ["q_proj", "v_proj", "qkv_proj"],
    "moshi": ["q_proj.linear", "v_proj.linear"],
    "rwkv": ["receptance", "value"],
    "zaya": ["q_proj", "v_proj_current", "v_proj_delayed"],
}
# Else the first line of which a model has all names. Latent attention is first: its q_proj is half of the pair.
_ADAPTED = (torch.nn.Linear, Conv1D)
_LORA_NAMES = (
    ["q_b_proj", "kv_b_proj"],  # DeepSeek-V3, MiniCPM3
    ["q_proj", "kv_b_proj"],  # DeepSeek-V2
    ["q_b_proj", "kv_proj"],  # DeepSeek-V4
    ["q_proj", "v_proj"],  # OPT, Llama, Mistral, Qwen, Gemma, GPT-J, ...
    ["query", "value"],  # BERT and relatives
    ["query_proj", "value_proj"],  # DeBERTa-v2
    ["q_lin", "v_lin"],  # DistilBERT, XLM
    ["q_head", "v_head"],  # Funnel
    ["project_q", "project_v"],  # CPM-Ant
    ["Wq", "Wv"],  # CTRL
    ["q", "v"],  # MPNet, xLSTM
    ["query_key_value"],  # GPT-NeoX, Bloom, Falcon
    ["qkv_proj"],  # Phi-3, CodeGen
    ["Wqkv"],  # ModernBERT, MPT, DBRX
    ["c_attn"],  # GPTBigCode
)


def lora(model: Any, config: MeZOConfig, rows: LabelRows | None = None) -> Any:
    """A LoRA adapter on the query and value projections, or on `lora_targets`; `train` patterns select among them.

    A is drawn from the run's noise stream, with the variance of the usual Kaiming-uniform start, so that it is
    the same on every device; B is zero. `rows` of label words get factors of their own, which are not tuned.

    Raises: MezoError if a target names no module, or one that takes no adapter, such as the head or an embedding.
    Reference: Hu et al. 2021; MeZO, appendix E.5.
    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> model = AutoModelForCausalLM.from_pretrained("my-model")
        >>> tuned_modules(lora(model, MeZOConfig(lora_rank=2)))
        'q_proj and v_proj, 4 modules'
    """
    from peft import LoraConfig, get_peft_model

    targets = list(config.lora_targets or lora_targets(model))
    for target in targets:
        _find(model, [target])
    first = _find(model, targets)
    _check_inside(model, targets)
    if config.train is not None:
        targets = _named_by(model, targets, config.train)
    held = {} if rows is None else lora_settings(model, rows, config.lora_alpha / config.lora_rank)
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=[*targets, *held.pop("targets", [])],
        **held,
        lora_dropout=0.0,
        bias="none",
        task_type=None,
        fan_in_fan_out=type(first).__name__ == "Conv1D",
    )
    try:
        with quiet_peft():
            tuned = get_peft_model(model, settings)
    except ValueError as error:  # of a module of a class that peft does not know
        raise MezoError(
            f"{type(first).__name__} modules take no LoRA adapter (lora_targets {', '.join(targets)}): "
            f"{' '.join(str(error).split()):.120}; set lora_targets to others, or use tuning=full"
        ) from error
    _make_real(tuned)
    if rows is not None:
        hold_rows(tuned, rows)
    # what others can load; peft would write the folder it came from
    settings.base_model_name_or_path = public_name(config.model)
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
    """Give the factors memory where the model has none: a serving engine or a disk holds it, and they live here."""
    where = device_of(tuned)
    device = "cpu" if where.type == "meta" else where
    for module in tuned.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None and tensor.is_meta and tensor.requires_grad:
                module._parameters[name] = torch.nn.Parameter(torch.zeros_like(tensor, device=device))


def lora_targets(model: Any) -> list[str]:
    """Names of the query and value projections of this architecture.

    Raises MezoError if none are known: then lora_targets must say.
    """
    own = _LORA_TARGETS.get(model.config.model_type)
    names = [name for name, module in model.named_modules() if isinstance(module, _ADAPTED)]
    for known in (own,) if own else _LORA_NAMES:
        if all(any(is_target(name, [target]) for name in names) for target in known):
            return known
    raise _not_found(model, own or ["q_proj", "v_proj"])


def tuned_modules(model: Any) -> str:
    """The modules that have an adapter, for people: "q_proj and v_proj, 60 modules"."""
    factors = ("lora_A", "lora_embedding_A", "ia3_l", "ln_tuning_layers")
    names = [
        name
        for name, module in model.named_modules()
        if not has_rows(module)
        and any(isinstance(f := getattr(module, key, None), torch.nn.Module) and len(f) for key in factors)  # type: ignore[arg-type]
    ]
    kinds = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))
    return f"{' and '.join(kinds)}, {len(names)} modules"


def _check_inside(model: Any, targets: list[str]) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    for name, module in model.named_modules():
        if is_target(name, targets) and (
            module in (head, embedding) or isinstance(module, torch.nn.Embedding)
        ):
            what = "the language-model head" if module is head else "an embedding"
            raise MezoError(
                f"lora_targets: {name} is {what}, which takes no LoRA adapter here: leave it out"
                + ("; tuning=head tunes it" if module is head else "")
            )


def _find(model: Any, targets: list[str]) -> Any:
    for name, module in model.named_modules():
        if is_target(name, targets):
            return module
    raise _not_found(model, targets)


def _not_found(model: Any, targets: list[str]) -> MezoError:
    inside = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, _ADAPTED)}
    linear = sorted(inside - {"lm_head"})
    return MezoError(
        f"no module of this {model.config.model_type!r} model is named {' or '.join(targets)}: "
        f"set lora_targets to some of: {', '.join(linear)}"
    )


def _named_by(model: Any, targets: list[str], patterns: tuple[str, ...]) -> list[str]:
    """The full names of the target modules whose weights the patterns are found in."""
    weights = {f"{n}.weight": n for n, _ in model.named_modules() if is_target(n, targets)}
    return [weights[name] for name in chosen(weights, patterns, of="LoRA target")]
