"""The cost model adds up, and `python -m benchmarks scale` prints it; no figure of time is asserted."""

import json
from dataclasses import replace
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.cost import SHAPES, Work, cost, efficiency
from benchmarks.scale import ACCELERATOR, machine_of
from hypothesis import given
from hypothesis import strategies as st

MACHINE = replace(ACCELERATOR, between=1e9)
POWERS = st.sampled_from([1, 2, 4, 8])


@given(st.sampled_from(SHAPES), POWERS, POWERS, st.integers(1, 5), POWERS)
def test_more_workers_do_less_each(shape: Any, tp: int, dp: int, directions: int, batches: int) -> None:
    work = Work(microbatches=batches, directions=directions)
    alone, shared = cost(shape, MACHINE, work), cost(shape, MACHINE, work, tp, dp)
    assert shared.weight_bytes * tp == pytest.approx(alone.weight_bytes)
    assert shared.forward <= alone.forward
    assert shared.update * tp == pytest.approx(alone.update)  # which every copy does in full
    assert (shared.sums > 0) == (tp > 1)
    assert (shared.losses > 0) == (dp > 1)
    assert 0 < efficiency(shape, MACHINE, work, tp, dp) <= 1


def test_a_message_is_what_a_run_sends() -> None:
    # as in test_engine.py, without the checksum: status, and two losses for each direction and microbatch
    work = Work(microbatches=4, directions=3)
    assert cost(SHAPES[0], MACHINE, work, 1, 2).bytes_between == 8 + 8 * 2 * 3 * 2


def test_rates_come_from_the_pieces() -> None:
    pieces = {"bare": [2.0], "pair": [4.0], "update": [5.0], "gather": [1.0], "sums": [0.5]}
    found = {"shape": vars(SHAPES[0]), "seconds": pieces, "gather": 100, "sums": 8}
    machine = machine_of(found, tokens=10)
    assert machine.flops == 2 * SHAPES[0].parameters * 10 / 2.0
    assert machine.pairs == SHAPES[0].parameters / 4.0
    assert machine.between_latency == 0.01
    step = cost(SHAPES[0], machine, Work(tokens=10))
    assert step.seconds == pytest.approx(2 * 2.0 + 4.0 + 5.0)  # two passes, a pair, an update


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scale", "--model", "13B", "--dp", "2", "--gigabits", "1", "--gigabits", "10"]
    assert main([*arguments, "--json"]) == 0
    slow, fast = json.loads(capsys.readouterr().out)["rows"]
    assert slow["seconds"] > fast["seconds"] == pytest.approx(sum(fast["parts"].values()))
    assert slow["bytes_between"] == fast["bytes_between"] == 24
    assert main(["scale", "--model", "14B"]) == 2
    assert "13B" in capsys.readouterr().err


@pytest.mark.slow
def test_the_check_measures_two_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "--check", "--rounds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["tp"], row["dp"]) for row in rows] == [(1, 1), (1, 2), (2, 1)]
    assert all(row["seconds"]["median"] > 0 and row["model_seconds"] > 0 for row in rows)
