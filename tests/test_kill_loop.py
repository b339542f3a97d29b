"""SIGKILL at random moments of one run: a few of them here, a hundred by `make soak`."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    from benchmarks.kill_loop import kill_loop

    found = kill_loop(tmp_path, 6, steps=60, seed=1, optimizer="momentum")
    assert found["exit"] == {"killed": 0, "whole": 0}
    assert found["kills"] == 6
    assert found["equal"]
