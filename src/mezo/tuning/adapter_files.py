"""A peft adapter's two files, checked before anything is built from them.

peft builds what adapter_config.json says and reads the tensors then: factors of any rank, layers copied any
number of times, names matched by any regular expression, a base model changed before its adapter fits (PiSSA,
LoftQ). Here the file of tensors says which modules have factors and how large they can be, and of the settings
those are taken that say how the factors are used.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.tuning.norms import norm_layers, norm_targets
from mezo.util.foreign import kind_of, read_text
from mezo.util.parsing import parse_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.(?:lora_A\.weight|lora_embedding_A)")
_NORM = re.compile(r"(?:base_model\.model\.)?(.+)\.ln_tuning_layers\.(\w+)")
_PLAIN = re.compile(r"\^?[\w.\\]+\$?")  # of what stands in a pattern, nothing that repeats

# Settings of the training, of other kinds of models or of where the adapter came from: not looked at.
_UNUSED = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_dropout", "peft_type", "peft_version", "revision", "runtime_config",
    "target_modules", "task_type", "megatron_core", "corda_config", "eva_config", "loftq_config",
    "ensure_weight_tying",
}  # fmt: skip
_STARTS = (None, True, False, "gaussian", "orthogonal")  # that leave the base model as it is


def settings_of(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says. Raises MezoError if it is no mapping of a kind of adapter that is loaded here."""
    path = folder / CONFIG
    try:
        found = parse_json(read_text(path), finite=True)
    except (OSError, ValueError) as error:
        raise MezoError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    kind = found.get("peft_type") if isinstance(found, dict) else None
    if kind not in ("LORA", "LN_TUNING", "PREFIX_TUNING"):
        raise MezoError(
            f"{path}: expected an adapter of peft_type LORA, LN_TUNING or PREFIX_TUNING, found {_shown(kind)}"
        )
    return found


def lora_config(folder: Path, settings: Mapping[str, Any], model: Any) -> Any:
    """peft's LoraConfig of a LoRA adapter, for `model`. Raises MezoError for one that does not fit it."""
    from peft import LoraConfig

    path, shapes = folder / CONFIG, shapes_of(folder / WEIGHTS)
    modules = {name for name, _ in model.named_modules()}
    targets = sorted({match[1] for name in shapes if (match := _FACTOR.fullmatch(name))})
    if not targets:
        raise MezoError(f"{folder / WEIGHTS}: holds no factors of a LoRA adapter (...lora_A.weight)")
    for name in targets:
        if name not in modules:
            raise MezoError(
                f"{folder}: this adapter does not fit the model, which has no module {_shown(name)}"
            )
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    used = {
        "r": _whole(path, settings, "r", largest),
        "lora_alpha": _number(path, settings, "lora_alpha"),
        "rank_pattern": _patterns(path, settings, "rank_pattern", largest),
        "alpha_pattern": _patterns(path, settings, "alpha_pattern", None),
        "bias": _one_of(path, settings, "bias", ("none", "all", "lora_only")),
        "modules_to_save": _names(path, settings, "modules_to_save"),
        **{
            name: bool(settings.get(name))
            for name in ("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias")
        },
    }
    _one_of(path, settings, "init_lora_weights", _STARTS)
    for name, value in settings.items():
        if name not in used and name not in _UNUSED and value not in (None, False, "", [], {}):
            _check_default(path, name, value, getattr(LoraConfig(), name, None))
    return LoraConfig(target_modules=targets, inference_mode=True, **used)


def norms_config(folder: Path, settings: Mapping[str, Any], model: Any) -> Any:
    """peft's LNTuningConfig of an adapter of norms, for `model`. Raises MezoError for one that does not fit it."""
    from peft import LNTuningConfig

    layers, found = norm_layers(model), dict[str, set[str]]()
    for name, shape in shapes_of(folder / WEIGHTS).items():
        match = _NORM.fullmatch(name)
        tensor = layers[match[1]]._parameters.get(match[2]) if match and match[1] in layers else None
        if match is None or tensor is None or tuple(tensor.shape) != shape:
            raise MezoError(
                f"{folder}: this adapter does not fit the model, which has no norm for {_shown(name)} of shape {shape}"
            )
        found.setdefault(match[1], set()).add(match[2])
    for layer, keys in found.items():
        if lacking := {key for key, p in layers[layer]._parameters.items() if p is not None} - keys:
            raise MezoError(f"{folder / WEIGHTS}: holds no {min(lacking)} of the norm {layer}")
    if not found:
        raise MezoError(f"{folder / WEIGHTS}: holds no gains of norms (...ln_tuning_layers.weight)")
    for name, value in settings.items():
        if name not in _UNUSED and value not in (None, False, "", [], {}):
            _check_default(folder / CONFIG, name, value, getattr(LNTuningConfig(), name, None))
    return LNTuningConfig(target_modules=norm_targets(model, found), inference_mode=True)


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file. Raises MezoError if it is not one; the format bounds sizes by the file's."""
    from safetensors import SafetensorError, safe_open

    try:
        if (kind := kind_of(path)) is not None:
            raise OSError(f"expected a file, found {kind}")
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise MezoError(f"{path}: not a readable safetensors file: {' '.join(str(error).split())}") from None


def _check_default(path: Path, name: str, value: Any, default: Any) -> None:
    if value != default:
        raise MezoError(
            f"{path}: {_shown(name)}={_shown(value)} is a setting that mezo does not load adapters with"
        )


def _whole(path: Path, settings: Mapping[str, Any], name: str, most: int) -> int:
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _wrong(path, name, f"a whole number from 1 to {most}, the largest size in {WEIGHTS}", value)
    return value


def _number(path: Path, settings: Mapping[str, Any], name: str) -> int | float:
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float(value)):
        raise _wrong(path, name, "a number", value)
    return value


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _patterns(path: Path, settings: Mapping[str, Any], name: str, most: int | None) -> dict[str, Any]:
    found = settings.get(name) or {}
    if not isinstance(found, dict) or not all(_PLAIN.fullmatch(key) for key in found):
        raise _wrong(path, name, "a mapping from names of modules", found)
    where = path / name
    return {
        key: _number(where, found, key) if most is None else _whole(where, found, key, most) for key in found
    }


def _names(path: Path, settings: Mapping[str, Any], name: str) -> list[str] | None:
    found = settings.get(name)
    if found is not None and not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
        raise _wrong(path, name, "a list of names", found)
    return found or None


def _one_of(path: Path, settings: Mapping[str, Any], name: str, choices: tuple[Any, ...]) -> Any:
    value = settings.get(name, choices[0])
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise _wrong(path, name, f"one of {', '.join(map(str, choices))}", value)
    return value


def _wrong(path: Path, name: str, expected: str, found: Any) -> MezoError:
    return MezoError(f"{path}: {_shown(name)}: expected {expected}, found {_shown(found)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
