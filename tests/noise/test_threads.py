"""Threads change the speed and nothing else: not the bits, not torch's own pool, not a forked child."""

import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from tests.noise.fresh import run
from tests.noise.oracle import DTYPES, KINDS, same_bits

from mezo import noise
from mezo.noise import omp_threads, thread_pool
from mezo.noise.where import Where


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
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
        noise.update_(w, where, [3], [1e-5], rounding="matched", rounding_seed=4, kind=kind)
        noise.perturb_pair(start, where, 1, 0.1, plus, minus, kind=kind)
        noise.fill_(z, where, 1, kind=kind)
        total = noise.sum_of_squares(where, shape, 1, kind=kind)
        results.append((w, plus, minus, z, total))
    for one, many in ((results[0], other) for other in results[1:]):
        assert all(same_bits(a, b) for a, b in zip(one[:4], many[:4], strict=True))
        assert one[4] == many[4]


def results(start: torch.Tensor) -> list[torch.Tensor]:
    w, plus, minus = start.clone(), torch.empty_like(start), torch.empty_like(start)
    noise.update_(w, Where(7), [1, 2], [0.1, 0.2], rounding_seed=3)
    noise.perturb_pair(start, Where(7), 1, 0.1, plus, minus)
    return [w, plus, minus]


@pytest.mark.usefixtures("threads")
def test_noise_between_matrix_products() -> None:
    """On the threads that have just multiplied matrices, and multiply again right after."""
    start = torch.randn(1, 300_000).bfloat16()
    a, b = torch.randn(200, 300).bfloat16(), torch.randn(300, 400).bfloat16()
    torch.set_num_threads(1)
    product, expected = a @ b, results(start)
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        for _ in range(20):
            assert torch.allclose(a @ b, product)
            assert all(same_bits(x, y) for x, y in zip(results(start), expected, strict=True))


@pytest.mark.usefixtures("threads")
def test_without_openmp_plain_threads_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.randn(1, 300_000)
    expected = results(start)
    made: list[int] = []

    def counted(work: Callable[[], object], threads: int) -> None:
        made.append(threads)
        pool_run(work, threads)

    pool_run = thread_pool.run
    monkeypatch.setattr(thread_pool, "run", counted)
    monkeypatch.setattr(omp_threads, "_parallel", lambda: None)
    torch.set_num_threads(3)
    assert all(same_bits(x, y) for x, y in zip(results(start), expected, strict=True))
    assert made == [3, 3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the pool does the work")
def test_torch_lends_its_threads() -> None:
    if not torch.backends.openmp.is_available():
        pytest.skip("this torch was built without OpenMP")
    assert omp_threads._parallel() is not None


@pytest.mark.usefixtures("threads")
def test_several_threads_may_call_at_once() -> None:
    torch.set_num_threads(2)
    start = torch.randn(1, 200_000)
    expected = results(start)
    equal: list[bool] = []

    def work() -> None:
        torch.set_num_threads(2)  # OpenMP keeps the number for each thread
        for _ in range(5):
            equal.append(all(same_bits(x, y) for x, y in zip(results(start), expected, strict=True)))

    callers = [threading.Thread(target=work) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert equal == [True] * 15


def test_the_pool_calls_once_on_each_thread() -> None:
    for count in (1, 2, 4):
        together = threading.Barrier(count, timeout=60)  # passed only if all call at once
        made: list[int] = []
        thread_pool.run(lambda: made.append(together.wait()), count)  # noqa: B023
        assert sorted(made) == list(range(count))


def test_a_failing_call_is_raised_after_the_others_have_ended() -> None:
    running, ended = threading.Event(), []
    first = iter([True, False])

    def work() -> None:
        if next(first):
            running.wait(60)  # until another thread is inside
            raise OSError("broken")
        running.set()
        threading.Event().wait(0.05)
        ended.append(1)

    with pytest.raises(OSError, match="broken"):
        thread_pool.run(work, 2)
    assert ended == [1]
    thread_pool.run(lambda: ended.append(1), 2)  # the workers are still there
    assert len(ended) == 3


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


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_numba_opens_no_second_openmp_pool() -> None:
    """A second pool spins and takes the cores from torch's: forward passes ran ten times slower."""
    alone, _ = run(POOLS, "torch")
    assert alone.startswith("[]\n")
    for order in ("torch numba", "numba torch"):
        assert run(POOLS, order)[0] == alone
