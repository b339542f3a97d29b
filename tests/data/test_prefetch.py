"""Batches made ahead are those of a plain loop, and no thread outlives the loop."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mezo
from mezo.data.prefetch import ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("mezo-ahead")]


@given(first=st.integers(0, 5), count=st.integers(0, 8))
def test_what_is_handed_out_is_what_a_loop_gives(first: int, count: int) -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    with ahead(make, first, first + count) as results:
        assert list(results) == [step * step for step in range(first, first + count)]
    assert made == list(range(first, first + count))
    assert threads() == []


def test_one_is_made_while_the_one_before_is_used_and_no_more() -> None:
    made: list[int] = []
    done = [threading.Event() for _ in range(6)]

    def make(step: int) -> int:
        made.append(step)
        done[step].set()
        return step

    with ahead(make, 0, 6) as results:
        for step in results:
            if step < 5:
                assert done[step + 1].wait(10)
            assert made == list(range(min(step + 2, 6)))


def test_what_fails_fails_in_its_turn() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise KeyError("the batch of step 2")
        return step

    seen: list[int] = []
    with pytest.raises(KeyError, match="the batch of step 2"), ahead(make, 0, 5) as results:
        seen.extend(iter(results.__next__, None))  # extend keeps what came before the error
    assert seen == [0, 1]
    assert threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_loop_that_is_cut_short_leaves_no_thread(error: type[BaseException]) -> None:
    made: list[int] = []

    def cut_short() -> None:
        with ahead(made.append, 0, 100) as results:
            next(results)
            assert len(threads()) == 1
            raise error

    with pytest.raises(error):
        cut_short()
    assert threads() == []
    assert len(made) <= 2


def test_torch_keeps_its_cores_and_opens_no_second_pool() -> None:
    """A new process: how many threads there are depends on all that ran before."""
    code = """
import os, torch
from mezo.data.prefetch import ahead
torch.set_num_threads(3)
torch.ones(1 << 20).sin()
count = lambda step: (torch.get_num_threads(), torch.ones(1 << 20).sin().sum() > 0, len(os.listdir("/proc/self/task")))
before = count(0)
with ahead(count, 0, 1) as results:
    inside, = results
with ahead(lambda step: None, 0, 1) as results:
    list(results)
print(before[0], before[2], inside[0], inside[2], torch.get_num_threads())
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted in /proc")
    environment = {**os.environ, "PYTHONPATH": str(Path(mezo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    cores, alone, cores_ahead, with_ahead, cores_after = map(int, done.stdout.split())
    assert (cores, cores_ahead, cores_after) == (3, 1, 3)
    assert with_ahead == alone + 1  # the thread itself
