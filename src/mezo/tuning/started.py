"""The model that a run starts from: a base, or the folder of an adapter, whose base it names."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mezo.errors import MezoError
from mezo.models.load import LoadedModel, load
from mezo.models.names import public_name
from mezo.tuning.adapter_files import CONFIG, settings_of
from mezo.tuning.saving import with_adapter


def base_of(name: str) -> str:
    """The base model of an adapter's folder; the name itself for a model.

    Raises MezoError if the adapter does not say what it is for, or if it is no LoRA and no norms.
    """
    # os.path says no of a name that no file can have, where pathlib raises: a model's name is not always a path.
    folder = Path(os.path.expanduser(name))
    if not os.path.isfile(folder / CONFIG) or os.path.exists(folder / "config.json"):
        return name
    settings = settings_of(folder)
    if settings["peft_type"] not in ("LORA", "LN_TUNING"):
        raise MezoError(
            f"{name}: an adapter of peft_type {settings['peft_type']}, which is not tuned further: give its base model"
        )
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise MezoError(f"{folder / CONFIG}: does not name its base model: add base_model_name_or_path")
    if os.path.isfile(os.path.join(os.path.expanduser(base), CONFIG)):
        raise MezoError(
            f"{folder / CONFIG}: its base model {base!r:.80} is an adapter itself: merge that one first"
        )
    return base


def load_start(
    name: str,
    dtype: str,
    device: str,
    trust_remote_code: bool = False,
    note: Callable[[str], None] | None = None,
    *,
    quantize: str | None = None,
) -> LoadedModel:
    """Load a model as `load` does; for an adapter's folder its base model with the adapter on it.

    Raises MezoError as `load` does, and if the adapter does not fit its base. The code of a base that only a file
    names is never run.
    """
    base = base_of(name)
    if base == name:
        return load(name, dtype, device, trust_remote_code, note, quantize)
    if trust_remote_code:
        raise MezoError(
            f"{name}: an adapter, whose file names the base model {base!r:.80}, and trust_remote_code would run that model's "
            "code: give the base model with --model"
        )
    loaded = load(base, dtype, device, False, note, quantize)
    model = with_adapter(loaded.model, Path(os.path.expanduser(name)))
    # as the tuned adapter's file is to say
    model.peft_config["default"].base_model_name_or_path = public_name(base)
    return replace(loaded, model=model, name=name)
