"""Threads change the speed and nothing else: not the bits, not torch's own pool, not a forked child."""

import os
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from tests.noise.fresh import run
from tests.noise.oracle import DTYPES, KINDS, same_bits

from mezo import noise
from mezo.noise import Where, pool


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 300_001), (2, 150_000), (300, 1001), (70_000, 3)])
def test_the_number_of_threads_does_not_matter(
    shape: tuple[int, int], dtype: torch.dtype, kind: noise.Kind
) -> None:
    """Long rows are cut into pieces, short rows are bundled; a global row longer than the view's keeps them 2-D."""
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        where = Where(7, 333, shape[1] + 5)
        w, plus, minus, z = (
            start.clone(),
            torch.empty_like(start),
            torch.empty_like(start),
            torch.empty(shape),
        )
        noise.update_(w, where, [1, 2], [0.1, 0.2], rounding_seed=3, kind=kind)
        noise.perturb_pair(start, where, 1, 0.1, plus, minus, kind=kind)
        noise.fill_(z, where, 1, kind=kind)
        total = noise.sum_of_squares(where, shape, 1, kind=kind)
        results.append((w, plus, minus, z, total))
    for one, many in ((results[0], other) for other in results[1:]):
        assert all(same_bits(a, b) for a, b in zip(one[:4], many[:4], strict=True))
        assert one[4] == many[4]


def test_the_pool_makes_every_call_once() -> None:
    made: list[int] = []
    for count in (1, 2, 4):
        made.clear()
        pool.run([lambda i=i: made.append(i) for i in range(200)], count)
        assert sorted(made) == list(range(200))


def test_a_failing_call_is_raised_after_the_others_have_ended() -> None:
    running, begun, ended = threading.Event(), [], []

    def slow() -> None:
        begun.append(1)
        running.set()
        threading.Event().wait(0.05)
        ended.append(1)

    def fail() -> None:
        running.wait(5)  # until another thread is inside `slow`
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        pool.run([fail, slow, fail, *[slow] * 50], 2)
    assert len(begun) == len(ended) < 51
    pool.run([slow, slow], 2)  # the workers are still there
    assert len(ended) == len(begun)


# The child makes no torch operation: OpenMP, where torch has used it, may hang in a forked child.
FORK = """
import os, sys, threading, torch
from mezo import noise
from mezo.noise import Where
torch.set_num_threads(2)
w, v = torch.zeros(1, 1 << 18), torch.zeros(1, 1 << 18)
noise.update_(w, Where(1), [2], [1.0])
child = os.fork()
if child == 0:
    noise.update_(v, Where(1), [2], [1.0])
    helped = threading.active_count() == 2
    os._exit(0 if helped and v.numpy().tobytes() == w.numpy().tobytes() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_makes_its_own_workers() -> None:
    run(FORK, PYTHONWARNINGS="ignore")


# What runs when numba comes before torch, and the other way round: forward passes and kernels on two
# threads. Prints the thread pools that threadpoolctl finds and the pools of numba that are loaded.
POOLS = """
import importlib, sys
for name in sys.argv[1].split():
    importlib.import_module(name)
import torch
from mezo import noise
from mezo.noise import Where
from threadpoolctl import threadpool_info
torch.set_num_threads(2)
x, w = torch.randn(256, 256), torch.randn(256, 256)
for _ in range(3):
    x = torch.tanh(x @ w)
    if len(sys.argv[1].split()) > 1:
        noise.update_(w, Where(1), [2], [1e-3])
with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1].rsplit("/", 1)[-1] for line in maps if ".so" in line}
print(sorted(name for name in loaded if any(p in name for p in ("omppool", "tbbpool", "workqueue", "libtbb"))))
print(sorted(name for name in loaded if any(p in name for p in ("libgomp", "libomp", "libiomp"))))
print(sorted(info["filepath"] for info in threadpool_info() if info["user_api"] == "openmp"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_numba_opens_no_second_openmp_pool() -> None:
    """A second pool spins and takes the cores from torch's: forward passes ran ten times slower."""
    alone, _ = run(POOLS, "torch")
    assert alone.startswith("[]\n")
    for order in ("torch numba", "numba torch"):
        assert run(POOLS, order)[0] == alone
