"""`python -m benchmarks` as a person types it, on a toy model; no figure of time is looked at."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.memory import CASES, PASSAGES, Case, over_inference
from benchmarks.passages import WORKLOADS
from tests.cli import toy

from benchmarks import peak

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


def measured(capsys: Capture, *arguments: str) -> dict[str, Any]:
    """What `python -m benchmarks ... --json` prints: one object and nothing else."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys: Capture, *arguments: str) -> str:
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def test_step(model: str, data: str, capsys: Capture) -> None:
    common = ("step", "--model", model, "--data", data, "--batch-size", "4", "--rounds", "1")
    report = measured(capsys, *common, "--dtype", "float32", "--dtype", "bfloat16", "--tuning", "lora")
    first, second = report["rows"]
    assert first["batch"] == "4 of reviews"
    assert set(first["seconds"]) == {"mezo", "mezo-mm", "rows", "bare", "reference"}
    assert set(second["seconds"]) == {"mezo", "rows", "bare", "reference", "reference-float32"}
    assert {"step_over_bare", "rows_over_step", "reference_over_step"} <= first["ratios"].keys()
    assert "reference_float32_over_step" in second["ratios"]
    assert first["ratios"]["step_over_bare"]["median"] > 0
    table = printed(capsys, *common, "--batch", "synthetic", "--case", "mezo", "--case", "bare", "--markdown")
    assert table.splitlines()[0].startswith("| model | dtype |")
    assert "| 4 x 64 synthetic |" in table


def test_step_without_data_takes_the_packaged_reviews(model: str, capsys: Capture) -> None:
    text = printed(capsys, "step", "--model", model, "--rounds", "1", "--batch-size", "2", "--case", "bare")
    assert "2 of the packaged reviews" in text


def test_noise(capsys: Capture) -> None:
    before = torch.get_num_threads()
    report = measured(capsys, "noise", "--elements", "4096", "--rounds", "1", "--threads", "1")
    assert torch.get_num_threads() == before
    kinds = [(row["what"], row["kind"]) for row in report["rows"]]
    assert ("bfloat16", "rademacher") in kinds
    assert kinds[-1] == ("adapter, 120 tensors", "gaussian")
    assert report["rows"][0]["rates"].keys() >= {"bare", "perturb", "pair", "update", "update-2", "torch"}
    text = printed(capsys, "noise", "--elements", "64", "--rounds", "1", "--dtype", "float16", "--markdown")
    assert "| float16 | gaussian |" in text


def test_prefix(model: str, capsys: Capture) -> None:
    common = ("prefix", "--model", model, "--rounds", "1", "--workload", "multirc", "--batch-size", "4")
    (row,) = measured(capsys, *common, "--bare")["rows"]
    assert row["batch"] == "4 of random tokens"
    assert row["tokens"]["asked"] == row["tokens_apart"]["asked"]
    assert row["tokens_apart"]["reused"] == 0
    assert 0 < row["reuse_rate"] < 1
    assert row["tokens_allow"] > 2
    assert row["largest_loss_difference"] < 1e-5
    assert row["ratios"].keys() == {"apart_over_shared", "shared_over_bare", "apart_over_bare"}
    assert "tokens alone allow" in printed(capsys, *common)


def test_converge(model: str, data: str, capsys: Capture) -> None:
    common = ("converge", "--model", model, "--data", data, "--batch-size", "4", "--eval-every", "2")
    (row,) = measured(capsys, *common, "--max-steps", "3", "--loss", "0.0001")["rows"]
    for name in ("mezo", "reference"):
        assert row[name]["steps"] == 3
        assert not row[name]["reached"]
        assert len(row[name]["losses"]) == 3
    assert row["mezo"]["losses"][0] == pytest.approx(row["reference"]["losses"][0], rel=1e-5)
    assert row["ratios"].keys() == {"reference_over_mezo_block"}


@pytest.mark.slow
def test_converge_stops_where_the_loss_is_reached(model: str, data: str, capsys: Capture) -> None:
    arguments = ("converge", "--model", model, "--data", data, "--batch-size", "4", "--eval-every", "1")
    # a large rate on a toy: some step goes below where it started
    (row,) = measured(capsys, *arguments, "--loss", "0.69", "--learning-rate", "0.1", "--max-steps", "60")[
        "rows"
    ]
    for name in ("mezo", "reference"):
        if row[name]["reached"]:
            assert [loss <= 0.69 for loss in row[name]["losses"]].index(True) == row[name]["steps"]
    assert row["mezo"]["reached"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted by Linux")
def test_memory(model: str, capsys: Capture) -> None:
    text = printed(capsys, "memory", "--model", model, "--repeats", "1", "--case", "inference", "--markdown")
    assert "| 16 x 64 synthetic |" in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted by Linux")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", ["sst2", "copa"])
def test_every_case_of_memory_runs(case: str, batch: str, model: str) -> None:
    settings = Case(case, model, "float32", "lora", batch, None, 2, None, 0)
    found, made_of = peak.peak_of(settings)
    assert found > 0
    assert made_of == {"sst2": "2 of the packaged reviews", "copa": "copa, 2 of random tokens"}[batch]


def test_memory_knows_every_workload() -> None:
    assert tuple(WORKLOADS) == PASSAGES


def test_peaks_are_compared_with_the_median_of_inference() -> None:
    ratios = over_inference({"inference": [1.0, 2.0, 4.0], "mezo": [2.0, 3.0, 2.0]})
    assert ratios["mezo_over_inference"] == {"median": 1.0, "min": 1.0, "max": 1.5}
    assert over_inference({"mezo": [1.0]}) == {}
    assert over_inference({"loaded": [4.0], "mezo": [5.0]})["mezo_over_loaded"]["median"] == 1.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["step", "--dtype", "float3"], "unknown dtype 'float3'; did you mean 'float32'"),
        (["step", "--tuning", "prefix"], "unknown tuning mode 'prefix'"),
        (["step", "--case", "bear"], "unknown case 'bear'; did you mean 'bare'?"),
        (["step", "--rounds", "0"], "--rounds"),
        (["step", "--model", "nowhere/at/all"], "no model folder 'nowhere/at/all'"),
        (["noise", "--kind", "uniform"], "unknown noise 'uniform'"),
        (["memory", "--batch", "sst3"], "unknown batch 'sst3'; did you mean 'sst2'?"),
        (["prefix", "--workload", "bool"], "unknown workload 'bool'; did you mean 'boolq'"),
        (["converge", "--tuning", "all"], "unknown tuning mode 'all'"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str, capsys: Capture) -> None:
    assert main([*arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines()[-1].startswith("mezo: error: ")
    assert words in error


def test_a_mistake_in_a_process_is_told_by_the_command(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("inference", "nowhere/at/all", "float32", "full", "sst2", None, None, None, 0)
    peak.main([json.dumps(asdict(case))])
    said = capsys.readouterr().out
    assert json.loads(said)["error"].startswith("no model folder 'nowhere/at/all'")
    done = subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    monkeypatch.setattr("benchmarks.memory.subprocess.run", lambda *args, **kwargs: done)
    assert main(["memory", "--model", "nowhere/at/all"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("mezo: error: no model folder")


def test_a_process_that_fails_shows_why(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], -9, stdout="", stderr="killed")
    monkeypatch.setattr("benchmarks.memory.subprocess.run", lambda *args, **kwargs: done)
    with pytest.raises(RuntimeError, match="the process of case 'inference' failed:\nkilled"):
        main(["memory", "--repeats", "1"])


def test_a_batch_larger_than_the_data(model: str, data: str, capsys: Capture) -> None:
    assert main(["step", "--model", model, "--data", data, "--batch-size", "99"]) == 2
    assert "expected a batch_size from 1 to 8" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["step", "noise", "memory", "prefix", "converge"])
def test_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: python -m benchmarks {name}" in capsys.readouterr().out


def test_a_folder_is_reported_by_its_name(data: str) -> None:
    from benchmarks.text import DEMO, source

    assert source(data) == Path(data).name
    assert source(None) == DEMO


def test_population(model: str, capsys: Capture) -> None:
    sizes = ("--members", "4", "--prompts", "2", "--length", "4", "--tokens", "3", "--rounds", "1")
    report = measured(capsys, "population", "--model", model, *sizes, "--in-turn", "--shared", "20")
    lora, rank_one = report["rows"]
    assert set(lora["seconds"]) == {"plain", "population", "whole", "one by one", "base"}
    assert set(rank_one["seconds"]) == {"plain", "population", "whole", "one by one"}
    assert rank_one["rows"] == 8
    assert rank_one["tokens"] == 24
    assert rank_one["ratios"]["population_over_plain"]["median"] > 0
