"""A tuned model, or its adapter, on disk: in the formats transformers and peft load."""

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from mezo.errors import MezoError
from mezo.models.load import kind_of
from mezo.models.locate import quiet
from mezo.models.quantised import is_quantised
from mezo.tuning.adapter_files import CONFIG as _CONFIG
from mezo.tuning.adapter_files import WEIGHTS as _WEIGHTS
from mezo.tuning.adapter_files import lora_config, norms_config, settings_of
from mezo.tuning.label_rows import mark_rows
from mezo.tuning.own_adapter import own_adapter
from mezo.tuning.peft_warnings import quiet_peft
from mezo.tuning.prefix import with_prefix
from mezo.tuning.prefix_keys import AttachedPrefix, prefix_of
from mezo.util.atomic_files import reason, sync_files, sync_folder, system_error


class SaveFailed(MezoError):
    """The weights cannot be written, and nothing half-written is left. why: the reason alone."""

    def __init__(self, target: Path, why: str) -> None:
        super().__init__(f"{target}: cannot save the weights: {why}")
        self.why = why


def save(model: Any, tokenizer: Any, target: Path, card: str | None = None) -> None:
    """Write a tuned model, or its adapter, with its tokenizer.

    Into a folder beside `target`, brought to the disk, then renamed: never half a model under the final name.

    Args:
        model: with its adapter, if it has one.
        tokenizer: its chat template is written too.
        target: the folder.
        card: the text of README.md; None writes no card.

    Raises:
        SaveFailed: it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.writing")
    _remove(temporary)
    try:
        if (prefix := prefix_of(model)) is not None:
            _save_prefix(model, prefix, temporary)
        elif (adapter := own_adapter(model)) is not None:
            with quiet(), warnings.catch_warnings(), _sorted_targets(adapter.settings):
                if getattr(adapter.settings, "lora_bias", False):  # taken for a factor that is not whole
                    warnings.filterwarnings("ignore", "Adapter .* have invalid shape")
                # peft would ask the hub whether the base model's embeddings were resized: they never are here
                model.save_pretrained(
                    temporary, save_embedding_layers=False, selected_adapters=[adapter.name]
                )
            _move_up(temporary / adapter.name)
        else:
            if is_quantised(model):  # what packed the weights as they were read cannot be undone, nor need be
                model._weight_conversions = None
            with quiet(), _with_cache(model.config):
                model.save_pretrained(temporary)
        _save_tokenizer(tokenizer, temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's has nothing filled in
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        sync_files(temporary)
        _remove(target)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except (OSError, SafetensorError) as error:
        _remove(temporary)
        raise SaveFailed(target, reason(error)) from None


@contextlib.contextmanager
def _sorted_targets(settings: Any) -> Iterator[None]:
    """Inside the block the targets are in order: peft writes a set, whose order is another one in each process."""
    targets = settings.target_modules
    if isinstance(targets, set):
        settings.target_modules = sorted(targets)
    try:
        yield
    finally:
        settings.target_modules = targets


def _move_up(folder: Path) -> None:
    """The files of an adapter that is not called "default", which peft puts into a folder of its name."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        os.replace(path, folder.parent / path.name)
    folder.rmdir()


@contextlib.contextmanager
def _with_cache(config: Any) -> Iterator[None]:
    """Inside the block the config says that a model generates with a cache; `load` turns that off for scoring."""
    off = getattr(config, "use_cache", None) is False
    if off:
        config.use_cache = True
    try:
        yield
    finally:
        if off:
            config.use_cache = False


def _remove(path: Path) -> None:
    """A folder with all that is in it, or a link and nothing of what it names; as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raises OSError if it cannot be written, where the tokenizers library raises a bare Exception."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if (found := system_error(error)) is None:
            raise
        raise found from None


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
    settings = settings_of(folder)
    if settings["peft_type"] == "PREFIX_TUNING":
        return _with_prefix(model, folder, settings)
    read = norms_config if settings["peft_type"] == "LN_TUNING" else lora_config
    config = read(folder, settings, model)
    from peft import PeftModel

    try:
        with quiet_peft():
            # factors that the file lacks would be those of a new adapter, drawn at random
            warnings.filterwarnings("error", "Found missing adapter keys")
            found = PeftModel.from_pretrained(model, str(folder), config=config).eval().requires_grad_(False)
            mark_rows(found)
            return found
    except Exception as error:  # of whatever kind peft's way through what the files say ends in
        raise MezoError(
            f"{folder}: this adapter does not fit the model: {' '.join(str(error).split())[:300]}"
        ) from None


def _with_prefix(model: Any, folder: Path, settings: dict[str, Any]) -> Any:
    """Not by peft, whose model would take no packed rows and compute no probes side by side."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        embeddings = load_file(folder / _WEIGHTS)["prompt_embeddings"]
    except (SafetensorError, OSError) as error:
        raise MezoError(f"{folder / _WEIGHTS}: not a readable safetensors file: {error}") from None
    except KeyError:
        raise MezoError(
            f"{folder / _WEIGHTS}: expected a tensor named prompt_embeddings, found none"
        ) from None
    try:
        return with_prefix(model, embeddings, base_name=str(settings.get("base_model_name_or_path") or ""))
    except MezoError as error:
        raise MezoError(f"{folder}: {error}") from None
