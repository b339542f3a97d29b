"""The types of weights in memory, and which of them a checkpoint has."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mezo.errors import MezoError
from mezo.models import gguf_files
from mezo.models.locate import folder_of
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAFETENSORS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def checkpoint_dtype(name: str) -> str:
    """The dtype that `auto` stands for: of config.json, else of most weights; of a GGUF, see `gguf_files.dtype_of`.

    Raises MezoError for a checkpoint in a type that is not tuned.
    """
    source = folder_of(name)
    found = gguf_files.dtype_of(source) if source.is_file() else _named(source) or _of_weights(source)
    if found not in DTYPES:
        raise MezoError(f"{name}: dtype=auto, and its weights are {found}: give one of {', '.join(DTYPES)}")
    return found


def _named(folder: Path) -> str | None:
    path = folder / "config.json"
    try:
        values = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise MezoError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    inner = values.get("text_config") if isinstance(values, dict) else None
    for found in (values, inner):
        named: Any = (found.get("dtype") or found.get("torch_dtype")) if isinstance(found, dict) else None
        if isinstance(named, str) and named != "auto":
            return named.removeprefix("torch.")
    return None


def _of_weights(folder: Path) -> str:
    """By the number of weights."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is no dict)
                part = file.get_slice(key)
                if (kind := part.get_dtype()) in _SAFETENSORS:
                    counts[_SAFETENSORS[kind]] += torch.Size(part.get_shape()).numel()
    return counts.most_common(1)[0][0] if counts else "float32"
