"""Broken files, each reader in a process of its own whose time and memory the operating system bounds.

    python -m tests.fuzz.limits COUNT '{"config.yaml": [20, 256], ...}'

prints {reader: how it ended}: "COUNT cases", the case that failed, or the signal that ended it.
"""

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from tests.fuzz.corpus import broken
from tests.fuzz.test_files import READERS as OF_FILES
from tests.fuzz.test_files import sound as sound_file

from mezo.ablation.formats import files as formats
from mezo.errors import MezoError
from mezo.models.checkpoint_files import named_files
from mezo.runs.snapshots import Snapshot
from mezo.tuning.adapter_files import settings_of
from mezo.tuning.label_rows import LabelRows

Reader = Callable[[Path], Any]


def _plan(suffix: str) -> Reader:
    return lambda path: formats.parse(path.read_bytes().decode("utf-8", "replace"), suffix)


READERS: dict[str, Reader] = {
    **{name: read for name, read in OF_FILES.items() if name not in ("t.mezo.journal", "rows.json")},
    **{f"plan{suffix}": _plan(suffix) for suffix in (".json", ".md", ".html")},
    "adapter_config.json": lambda path: settings_of(path.parent),
    "model.safetensors.index.json": named_files,
    "snapshot.safetensors": Snapshot,
    "start.safetensors": lambda path: LabelRows.of_bytes(path.read_bytes(), path),
}


def _loop(path: Path) -> None:
    while True:
        path.name.upper()


CHECKS: dict[str, Reader] = {  # of the limits themselves
    "a loop": _loop,
    "a hog": lambda path: bytearray(1 << 30),
    "a crash": lambda path: os.kill(os.getpid(), signal.SIGSEGV),
}


def sound(name: str, folder: Path) -> bytes:
    if name in CHECKS:
        return b"x"
    if name.startswith("plan."):
        plan = formats.parse(sound_file("plan.yaml", folder).decode(), ".yaml")
        if name.endswith(".html"):  # a page is only read
            return MarkdownIt().render(formats.FORMATS[".md"].write(plan)).encode()  # type: ignore[misc]
        return formats.FORMATS[Path(name).suffix].write(plan).encode()  # type: ignore[misc]
    if name == "adapter_config.json":
        return json.dumps(
            {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        ).encode()
    if name == "model.safetensors.index.json":
        return json.dumps({"metadata": {}, "weight_map": {"a": "b.safetensors"}}).encode()
    if name == "snapshot.safetensors":
        save_file({"theta/w": torch.ones(4)}, folder / "sound", metadata={"mezo": "{}", "checksum": "x"})
        return (folder / "sound").read_bytes()
    if name == "start.safetensors":
        return LabelRows(torch.tensor([5, 6]), torch.ones(2, 32)).to_bytes()
    return sound_file(name, folder)


def run(name: str, count: int, seconds: int, mebibytes: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        ends, says = os.pipe()
        child = os.fork()
        if not child:
            os.close(ends)
            os.write(says, _cases(name, Path(folder), count, seconds, mebibytes).encode()[:4000])
            os._exit(0)
        os.close(says)
        with open(ends, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return (
            said if status == 0 else f"ended by {signal.Signals(-status).name}" if status < 0 else f"{status}"
        )


def _cases(name: str, folder: Path, count: int, seconds: int, mebibytes: int) -> str:
    """In the child."""
    path, done, read = folder / name, 0, {**READERS, **CHECKS}[name]
    content = sound(name, folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for data in broken(content, count):
        path.write_bytes(data)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, resource.RLIM_INFINITY)
        )
        try:
            read(path)
        except MezoError:
            pass
        except BaseException as error:
            return f"{type(error).__name__}: {error!s:.200} {data[:200]!r}"
        done += 1
    return f"{done} cases"


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    wanted: dict[str, tuple[int, int]] = json.loads(sys.argv[2])
    print(json.dumps({name: run(name, int(sys.argv[1]), *limits) for name, limits in wanted.items()}))
