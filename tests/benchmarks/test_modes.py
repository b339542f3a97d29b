"""`python -m benchmarks modes` on a toy model; no figure of time is looked at."""

import json
import sys

import pytest
from benchmarks.__main__ import main
from benchmarks.memory import Case
from benchmarks.modes import BASE, SLOW, WAYS
from tests.cli import toy

from benchmarks import peak

Capture = pytest.CaptureFixture[str]
linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted by Linux")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The cases that would have had a process; the peak of each is its number."""
    asked: list[Case] = []
    monkeypatch.setattr(
        "benchmarks.modes.peak_in_a_process", lambda case: (asked.append(case), {"peak": 1e6 * len(asked)})[1]
    )
    return asked


def test_every_way_is_timed_and_put_beside_the_default(
    model: str, without_processes: list[Case], capsys: Capture
) -> None:
    common = ("modes", "--model", model, "--batch-size", "2", "--rounds", "1", "--repeats", "2")
    assert main([*common, "--tuning", "lora", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["way"] for row in rows] == [way for way in WAYS if way != SLOW]
    assert len(without_processes) == 2 * len(rows)
    assert {case.tuning for case in without_processes} == {"lora"}
    assert rows[0]["ratios"]["time_over_default"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    # the default had the first process and the last: processes run in turn, there and back
    assert rows[0]["peak_mb"] == {"median": (1 + 2 * len(rows)) / 2, "min": 1.0, "max": 2.0 * len(rows)}


def test_one_way_and_the_default(model: str, without_processes: list[Case], capsys: Capture) -> None:
    common = ("modes", "--model", model, "--batch-size", "2", "--rounds", "1", "--repeats", "1")
    assert main([*common, "--way", "store", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[5].strip() for line in lines[2:]] == [BASE, "store"]


def test_an_unknown_way_is_one_line(capsys: Capture) -> None:
    assert main(["modes", "--way", "stored"]) == 2
    assert "unknown way 'stored'; did you mean 'store'" in capsys.readouterr().err


@linux
@pytest.mark.parametrize("way", [way for way in WAYS if way != SLOW])
def test_every_way_runs_in_a_process(way: str, model: str) -> None:
    found, made_of = peak.peak_of(Case(way, model, "bfloat16", "lora", "synthetic", None, 2, None, 0))
    assert found > 0
    assert made_of == "2 x 64 synthetic"


@linux
@pytest.mark.slow
def test_a_process_prints_its_peak(model: str, capsys: Capture) -> None:
    assert (
        main(["modes", "--model", model, "--rounds", "1", "--repeats", "1", "--way", "adam", "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row["peak_mb"]["median"] > 1 for row in rows)
