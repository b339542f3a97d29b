"""The statistics of interleaved measurements."""

import pytest
import torch
from benchmarks.timing import Spread, interleaved, ratio, threads

from benchmarks import timing


def test_spread_is_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0, 4.0]) == Spread(3.0, 1.0, 9.0)
    assert Spread(0.123456, 0.1, 2 / 3).as_dict(3) == {"median": 0.123, "min": 0.1, "max": 0.667}


def test_ratios_are_formed_round_by_round() -> None:
    # a machine that is ten times slower in one round changes no ratio
    seconds = {"ours": [1.0, 10.0, 1.0], "base": [2.0, 20.0, 2.0]}
    assert ratio(seconds, "ours", "base") == Spread(0.5, 0.5, 0.5)


def test_every_round_takes_all_cases_in_alternating_order() -> None:
    calls: list[tuple[str, int]] = []
    cases = {name: lambda number, name=name: calls.append((name, number)) for name in "abc"}
    seconds = interleaved(cases, 2)
    assert calls == [(name, number) for number, order in enumerate(("abc", "cba", "abc")) for name in order]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_seconds_are_those_of_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 100.0, 103.0, 200.0, 204.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert interleaved({"a": lambda number: None}, 2) == {"a": [3.0, 4.0]}  # the first is not counted


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    with threads(None) as count:
        assert count == before
    assert torch.get_num_threads() == before
