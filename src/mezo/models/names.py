"""What a model is called on the hub, for files that leave this machine."""

import os
import re
from pathlib import Path

from mezo.models import smollm2

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]+/?$")


def hub_id(model: str) -> str | None:
    """The hub id of a model; None for a local folder.

    Args:
        model: as a person names it: a hub id, a folder, a snapshot in the hub's cache, or the embedded model.

    Example:
        >>> from mezo.models.names import hub_id
        >>> hub_id("smollm2-135m")
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    if is_embedded(model):
        return smollm2.HUB_ID
    if found := _SNAPSHOT.search(model):
        return f"{found[1]}/{found[2]}"
    return model if _HUB_ID.fullmatch(model) and not model.startswith(".") and not _is_folder(model) else None


def public_name(model: str) -> str:
    """The hub id where there is one, and otherwise the model as it was named.

    Example:
        >>> from mezo.models.names import public_name
        >>> public_name("./my-model")
        './my-model'
    """
    return hub_id(model) or model


def is_embedded(model: str) -> bool:
    """Whether this is the embedded model, by its name or by the folder that it is kept in."""
    if model == smollm2.NAME:
        return not _is_folder(model)
    return Path(os.path.expanduser(model)) == smollm2.cache_folder() / "models" / smollm2.NAME


def _is_folder(model: str) -> bool:
    return os.path.isdir(os.path.expanduser(model))
