"""Where a model's files are: a folder that was looked at, a GGUF file, or a hub id."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers.utils import logging as hf_logging

from mezo.errors import MezoError
from mezo.models import gguf_files, smollm2
from mezo.models.checkpoint_files import check_index, reason_of


def locate(name: str, note: Callable[[str], None]) -> str:
    """A folder that was checked, a GGUF file, or a hub id."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return str(_checked_folder(path))
    if name == smollm2.NAME:
        return str(smollm2.folder(note))
    if gguf_files.is_gguf(path):
        gguf_files.check(path)
        return str(path)
    if path.is_file():
        raise MezoError(
            f"{name}: a file; expected a model folder (config.json, *.safetensors, tokenizer) or a .gguf file"
        )
    beside = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
    close = [str(path.with_name(n)) for n in difflib.get_close_matches(path.name, beside, n=3, cutoff=0.75)]
    close += difflib.get_close_matches(name, [smollm2.NAME], cutoff=0.75)
    if close:
        raise MezoError(f"no model {name!r}; did you mean {' or '.join(repr(c) for c in close)}?")
    if path.suffix.lower() == gguf_files.SUFFIX:
        raise MezoError(f"no file {name!r}")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):  # no hub id looks like that
        found = f"; {path.parent} holds {', '.join(beside[:8])}" if beside else ""
        raise MezoError(f"no model folder {name!r}{found}")
    return name


def folder_of(name: str, *, code: bool = False) -> Path:
    """Where a model's files are: for a hub id, the folder they are kept in; a GGUF file is all there is.

    code: its Python files too.
    """
    source = locate(name, to_stderr)
    if Path(source).exists():
        return Path(source)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", *(["*.py"] if code else [])]
    return Path(
        reading(
            name, "files", lambda: snapshot_download(source, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
    )


def _checked_folder(path: Path) -> Path:
    """The folder, or the GGUF file in it."""
    if any(path.glob("*.safetensors")) and (path / "config.json").is_file():
        check_index(path)
        return path
    if (path / "model" / "config.json").is_file():
        raise MezoError(f"{path}: no config.json in this folder; did you mean {str(path / 'model')!r}?")
    if (path / "config.yaml").is_file() and (path / "trajectory.mezo").is_file():
        raise MezoError(
            f"{path}: a run, not a model: give its base model, and {path / 'adapter'} with --adapter"
        )
    if (gguf := gguf_files.file_in(path)) is not None:
        gguf_files.check(gguf)
        return gguf
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise MezoError(
                f"{path}: an adapter, not a model: give its base model with --model, this with --adapter"
            )
        raise MezoError(f"{path}: no config.json in this folder; expected a model saved by save_pretrained")
    unsafe = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern))
    if unsafe:
        raise MezoError(
            f"{path}: weights only as {unsafe[0]}, which can run code when opened; expected *.safetensors:"
            f" convert it once with transformers' save_pretrained"
        )
    raise MezoError(f"{path}: no *.safetensors in this folder; expected a model saved by save_pretrained")


def reading(name: str, what: str, load_it: Callable[[], Any]) -> Any:
    try:
        return load_it()
    except Exception as error:  # of whatever kind the libraries' way through what the files say ends in
        if isinstance(error, MezoError):
            raise
        said = reason_of(error, what)
        hint = (
            ""
            if Path(os.path.expanduser(name)).is_dir()
            else f"; a local folder or {smollm2.NAME!r} needs no network"
        )
        if "trust_remote_code" in str(error):
            said, hint = "it brings its own Python code; if you trust that code, add --trust-remote-code", ""
        raise MezoError(f"{name}: cannot load the {what}: {said}{hint}") from error


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings that repeat what the checks here say better."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
