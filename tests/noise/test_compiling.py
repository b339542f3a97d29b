"""First use: announced once, kept on disk, and never kept past a change of the source."""

import ctypes
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.noise.fresh import run

import mezo
from mezo.noise import cpu_jit

FILL = """
import torch
from mezo import noise
from mezo.noise import Where
out = torch.empty(1, 256)
noise.fill_(out, Where(1), 2)
noise.sum_of_squares(Where(1), (1, 256), 2, kind="gaussian")
print(out[0, 0].item())
"""


@pytest.mark.slow
def test_first_use_is_announced_and_kept_until_the_source_changes(tmp_path: Path) -> None:
    source, cache = tmp_path / "src", str(tmp_path / "cache")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(mezo.__file__).parent, source / "mezo", ignore=ignored)
    first, said = run(FILL, source=source, NUMBA_CACHE_DIR=cache)
    assert re.fullmatch(r"mezo: compiling the noise kernels for this CPU, once \(about \d+ s\)\n", said)
    assert run(FILL, source=source, NUMBA_CACHE_DIR=cache) == (first, "")

    # A file that only holds callees changes; the time and size of the kernels' own file do not.
    stream = source / "mezo" / "noise" / "cpu_stream.py"
    stream.write_text(stream.read_text().replace("0x9E3779B9", "0x9E3779B8"))
    changed, said = run(FILL, source=source, NUMBA_CACHE_DIR=cache)
    assert said
    assert changed != first


def test_where_nothing_can_be_written_kernels_still_compile() -> None:
    """Numba refuses to keep a function that has no folder, here because it has no file either."""
    namespace: dict[str, Any] = {"__name__": "nowhere", "add": cpu_jit.atomic_add}
    exec("def once(address):\n    add(address, 1)", namespace)
    count = ctypes.c_int64(41)
    cpu_jit.kernel(namespace["once"]).call(ctypes.addressof(count))
    assert count.value == 42


GENERIC = """
from tests.noise import test_kernels, test_rounding
import torch
for rounding in ("matched", "stochastic", "nearest"):
    test_rounding.test_every_value_of_the_type(torch.float16, rounding)
test_kernels.test_perturb("odd", "gaussian", torch.float16, "cpu")
"""


@pytest.mark.slow
def test_a_processor_without_float16_makes_the_same_bits(tmp_path: Path) -> None:
    run(GENERIC, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path))


def test_the_package_imports_without_numba_torch_or_triton() -> None:
    code = (
        "import sys, mezo.noise; "
        "assert not {'numba', 'torch', 'triton', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    run(code)
