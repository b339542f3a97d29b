"""A race on a toy: equal passes, rates by halving, runs that are found again."""

import json
from pathlib import Path

import pytest
from benchmarks.race import Curve, Setup, entry, run, steps_of, summary
from benchmarks.race_entries import BACKWARD, METHODS, RACES, Race
from tests.resumed import ROWS, base

from benchmarks import race

TOY = Race("toy", "causal", "sst2", "full", 4, 24, 1e-3, (1e-4, 1e-2, 1e3))


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    data = tmp_path / "data" / "sst2"
    data.mkdir(parents=True)
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return Setup(tmp_path / "data", {"causal": str(base(tmp_path / "base"))}, tmp_path / "runs", 1.0, 8, 1)


def test_steps_fill_the_passes_and_no_more() -> None:
    assert steps_of(METHODS["two-point"], TOY, 1.0) == 12
    assert steps_of(METHODS["auto"], TOY, 1.0) == 8  # which all measure
    assert steps_of(METHODS["rows-auto"], TOY, 1.0) == 4
    assert steps_of(BACKWARD["adamw"], TOY, 1.0) == 8
    assert steps_of(METHODS["two-point"], TOY, 1 / 9) == 1
    for name, one in RACES.items():
        for method in (*METHODS.values(), *BACKWARD.values()):
            steps = steps_of(method, one, 1.0)
            spent = method.start_passes(one) + sum(
                method.passes_of(n, race.FIRST, race.EVERY) for n in range(steps)
            )
            assert spent <= one.passes < spent + method.passes_of(steps, race.FIRST, race.EVERY), name


@pytest.mark.slow
def test_a_race(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ("two-point-linear", "auto", "adamw")
    found = run(TOY, methods, 2, setup)
    assert [list(curves) for _, curves in found.values()] == [[0, 1]] * 3
    assert found["two-point-linear"][0] in (1e-4, 1e-2)  # the third one throws theta away
    assert found["auto"][0] is None
    for _, curves in found.values():
        for curve in curves.values():
            assert curve.passes[-1] <= TOY.passes
            assert curve.peak_memory_bytes > 0
            assert len(curve.passes) == len(curve.losses) > 2
    assert found["two-point-linear"][1][0].losses != found["two-point-linear"][1][1].losses
    rows = summary("toy", found)
    assert rows[0]["share"]["min"] <= 1
    monkeypatch.setattr(race.subprocess, "run", lambda *a, **k: pytest.fail("a run was made again"))
    assert run(TOY, methods, 2, setup) == found


@pytest.mark.slow
def test_passes_are_what_the_engine_counts(setup: Setup) -> None:
    """Rows x probes: the tokens that a step's probes ask for, over those of one pass of its batch."""
    for name in ("two-point", "auto", "rows-auto"):
        method = METHODS[name]
        entry(TOY, name, method, None if not method.rates_of(TOY) else 1e-4, 0, 1.0, setup)
    plain, measured, rows = (
        _asked(setup, folder) for folder in ("two-point/0.0001-0-1", "auto/auto-0-1", "rows-auto/auto-0-1")
    )
    assert measured[0] * 2 == plain[0] * 3
    assert rows[0] * 2 == plain[0] * 5


def _asked(setup: Setup, folder: str) -> list[int]:
    from mezo.runs.metrics_file import read_metrics

    return [s.tokens_asked for s in read_metrics(setup.output / "toy" / folder / "metrics.jsonl").steps]


def test_the_end_of_a_run_that_broke_off_is_the_worst() -> None:
    assert Curve([0.0], [float("nan")], [0.5], [0.0], 1).end == float("inf")
    assert Curve([0.0, 2.0], [0.7, 0.5], [0.5, 0.5], [0.0, 1.0], 1).passes_to(0.6) == 2.0
    assert Curve([0.0], [0.7], [0.5], [0.0], 1).passes_to(0.6) is None
