"""A tuned model, or its adapter, on disk: in the formats transformers and peft load."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mezo.errors import MezoError
from mezo.models import kind_of, quiet
from mezo.run import sync_files, sync_folder
from mezo.tuning.prefix import with_prefix
from mezo.tuning.prefix_keys import AttachedPrefix, prefix_of
from mezo.tuning.quiet import quiet_peft

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save(model: Any, tokenizer: Any, target: Path) -> None:
    """Write a tuned model, or its adapter.

    Into a folder beside `target`, brought to the disk, then renamed: never half a model under the final name.
    """
    temporary = target.with_name(f".{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if (prefix := prefix_of(model)) is not None:
            _save_prefix(model, prefix, temporary)
        elif hasattr(model, "peft_config"):
            with quiet():
                # peft would ask the hub whether the base model's embeddings were resized: they never are here
                model.save_pretrained(temporary, save_embedding_layers=False)
        else:
            with quiet():
                model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        sync_files(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise MezoError(f"{target}: cannot save the weights: {error}") from None


def _save_prefix(model: Any, prefix: AttachedPrefix, folder: Path) -> None:
    """As peft does: one matrix, (tokens, layers * 2 * heads * dim), keys before values, layer by layer."""
    from peft import PrefixTuningConfig, TaskType
    from safetensors.torch import save_file

    layers = prefix.layers
    flat = torch.cat([part.detach() for layer in layers for part in (layer.keys, layer.values)], dim=1)
    causal = kind_of(model.config, prefix.base_name) == "causal"
    settings = PrefixTuningConfig(
        # peft has no prefix for masked models by their own name; this one hands it on as it is
        task_type=TaskType.CAUSAL_LM if causal else TaskType.FEATURE_EXTRACTION,
        inference_mode=True,
        base_model_name_or_path=prefix.base_name,
        num_virtual_tokens=prefix.num_tokens,
        num_transformer_submodules=1,
        num_layers=len(layers),
        num_attention_heads=layers[0].num_heads,
        token_dim=layers[0].keys.shape[1],
        encoder_hidden_size=layers[0].keys.shape[1],
    )
    settings.save_pretrained(str(folder))
    save_file({"prompt_embeddings": flat.cpu().contiguous()}, folder / _WEIGHTS, metadata={"format": "pt"})


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with a saved peft adapter on it. Raises MezoError if it is not one for this model."""
    if not (folder / _CONFIG).is_file() or not (folder / _WEIGHTS).is_file():
        raise MezoError(f"{folder}: expected a peft adapter ({_CONFIG} and {_WEIGHTS})")
    try:
        settings = json.loads((folder / _CONFIG).read_text())
        if settings.get("peft_type") == "PREFIX_TUNING":
            return _with_prefix(model, folder, settings)
        from peft import PeftModel

        with quiet_peft():
            return PeftModel.from_pretrained(model, str(folder)).eval().requires_grad_(False)
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        raise MezoError(
            f"{folder}: this adapter does not fit the model: {' '.join(str(error).split())[:300]}"
        ) from None


def _with_prefix(model: Any, folder: Path, settings: dict[str, Any]) -> Any:
    """Not by peft, whose model would take no packed rows and compute no probes side by side."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        embeddings = load_file(folder / _WEIGHTS)["prompt_embeddings"]
    except SafetensorError as error:
        raise MezoError(f"{folder / _WEIGHTS}: not a readable safetensors file: {error}") from None
    try:
        return with_prefix(model, embeddings, base_name=settings.get("base_model_name_or_path") or "")
    except MezoError as error:
        raise MezoError(f"{folder}: {error}") from None
