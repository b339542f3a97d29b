"""GGUF files, llama.cpp's: structure, tokenizer and weights in one. transformers reads them; the weights become plain ones."""

import contextlib
import importlib.util
import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mezo.errors import MezoError

SUFFIX = ".gguf"
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})$")
_FREQUENCIES = "rope_freqs.weight"


class Contents(NamedTuple):
    """What the header of a file says."""

    types: frozenset[str]  # of its tensors
    elements: dict[str, int]  # by tensor
    frequencies: bool  # whether it scales its rotary positions


def is_gguf(source: str | Path) -> bool:
    """Whether a model's source is a GGUF file."""
    return str(source).endswith(SUFFIX) and Path(source).is_file()


def file_in(folder: Path) -> Path | None:
    """The GGUF file that a folder without safetensors is for. Raises MezoError if it holds several."""
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        shown = ", ".join(path.name for path in found[:6]) + (", ..." if len(found) > 6 else "")
        raise MezoError(
            f"{folder}: expected one GGUF file, found {len(found)} ({shown}): give the path of the one to tune"
        )
    return found[0] if found else None


def check(path: Path) -> None:
    """Raises MezoError if a file is no GGUF, is a part of one, or cannot be read here."""
    if importlib.util.find_spec("gguf") is None:
        raise MezoError(f"{path}: reading GGUF needs the package gguf: pip install 'mezo-llm[gguf]'")
    if (part := _SPLIT.search(path.stem)) and int(part[1]) > 1:
        raise MezoError(
            f"{path}: one of {int(part[1])} parts of a model: join them first (llama-gguf-split --merge)"
        )
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise MezoError(f"{path}: expected a GGUF file, found one that does not begin with GGUF")
    version = struct.unpack("<I", head[4:8])[0]
    if version not in (2, 3):
        raise MezoError(f"{path}: expected version 2 or 3 of GGUF, found {version}: convert the model again")


def tensor_count(path: Path) -> int:
    """How many tensors the header of a file that was checked counts."""
    with path.open("rb") as file:
        return struct.unpack("<Q", file.read(16)[8:])[0]


def arguments(source: str) -> tuple[str, dict[str, Any]]:
    """What from_pretrained is given for a source: a folder or hub id, and options."""
    if not is_gguf(source):
        return source, {}
    path = Path(source)
    return str(path.parent), {"gguf_file": path.name}


def for_weights(source: str) -> dict[str, Any]:
    """Options of from_pretrained for the weights: GGUF becomes plain tensors, of the values that its blocks stand for."""
    if not is_gguf(source):
        return {"use_safetensors": True}
    import transformers

    kind = getattr(transformers, "GgufConfig", None)  # of releases that could leave blocks packed
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


@contextlib.contextmanager
def without_bars(source: str) -> Iterator[None]:
    """transformers draws a bar for the tensors of a GGUF, whatever it was told."""
    with contextlib.redirect_stderr(io.StringIO()) if is_gguf(source) else contextlib.nullcontext():
        yield


def contents(path: Path) -> Contents:
    """The tensors of a file. Raises MezoError if its header cannot be read."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        scaling = [field for name, field in reader.fields.items() if name.endswith(".rope.scaling.type")]
        tensors = {t.name: t for t in reader.tensors}
        return Contents(
            frozenset(t.tensor_type.name for t in tensors.values()),
            {name: int(t.n_elements) for name, t in tensors.items()},
            any(field.contents() != "none" for field in scaling) or _FREQUENCIES in tensors,
        )
    except Exception as error:  # numpy and struct end in many ways on bytes that are cut or made up
        raise MezoError(f"{path}: not a readable GGUF file: {' '.join(str(error).split())[:200]}") from None


def dtype_of(path: Path) -> str:
    """The dtype that holds a file's values: its own, or float32 for blocks of a scale and small numbers."""
    types = contents(path).types
    if types - set(_PLAIN):
        return "float32"
    return next((_PLAIN[name] for name in ("BF16", "F16") if name in types), "float32")


def check_whole(path: Path, model: Any) -> None:
    """Raises MezoError unless all that a file says is in the model that transformers made of it.

    transformers leaves out what it has no place for (a bias, scaled rotary positions): another model, silently.
    """
    found = contents(path)
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if found.frequencies and rope.get("rope_type", "default") == "default":
        raise MezoError(
            f"{path}: scales its rotary positions, and transformers does not read how: the model would be another; give "
            "the checkpoint in safetensors"
        )
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    there = sum(
        count
        for name, count in found.elements.items()
        if name != _FREQUENCIES and not (tied and name == "output.weight")
    )
    here = sum(p.numel() for p in model.parameters())
    if there != here:
        raise MezoError(
            f"{path}: has {there:,} weights, and the model that transformers makes of it {here:,}: it would be another "
            "model; give the checkpoint in safetensors"
        )


def made_plain(model: Any) -> Any:
    """The model without the mark of its file, which would keep it from being saved."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if hasattr(config, "quantization_config"):
            del config.quantization_config
    model.hf_quantizer = None
    if hasattr(model, "quantization_method"):
        del model.quantization_method
    if conversions := getattr(model, "_weight_conversions", None):
        # Reversed when the model is saved: mxfp4's would name its bfloat16 tensors as packed ones.
        model._weight_conversions = [
            c
            for c in conversions
            if not any("Mxfp4" in type(o).__name__ for o in getattr(c, "operations", ()))
        ]
    return model
