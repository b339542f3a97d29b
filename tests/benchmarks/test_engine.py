"""`python -m benchmarks engine`, with an engine of this process in place of SGLang: what is counted, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from tests.cli import toy
from tests.engines.serving.inprocess import InProcess

from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import EngineSpec

Capture = pytest.CaptureFixture[str]
EPSILON_ROUNDING = 2**-20  # of a loss, as in tests of the engines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[InProcess, dict[str, str]]]:
    """The engines that were started, each with the environment it would have had."""
    found: list[tuple[InProcess, dict[str, str]]] = []

    def start(engine: str, spec: EngineSpec, **_: Any) -> InProcess:
        found.append((InProcess(spec), dict(os.environ)))
        return found[-1][0]

    monkeypatch.setattr(subprocess, "start", start)
    for engine in ("SGLANG", "VLLM"):
        monkeypatch.delenv(f"MEZO_{engine}_PYTHON", raising=False)
    return found


def engine_variables() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name.endswith(("_PYTHON", "_BIND", "_THREADS"))
    }


def measured(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    assert main(["engine", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["rows"]


def test_engines_take_turns_on_the_same_steps(
    model: str, data: str, started: list[tuple[InProcess, dict[str, str]]], capsys: Capture
) -> None:
    before = engine_variables()
    rows = measured(
        capsys,
        *("--model", model, "--data", data, "--batch-size", "4", "--rounds", "2", "--workload", "sst2"),
        *("--engine", "transformers", "--engine", "sglang", "--sglang-python", "python", "--without-cache"),
    )
    names = ["transformers", "transformers, no cache", "sglang", "sglang, no cache"]
    assert [row["engine"] for row in rows] == names
    assert {row["batch"] for row in rows} == {"4 of reviews"}
    cached, plain = rows[2], rows[3]
    # " film" begins every prompt of the toy reviews; what a cache spares is asked for and not computed
    assert cached["tokens"]["reused"] > 0 == plain["tokens"]["reused"]
    assert cached["tokens"]["asked"] == plain["tokens"]["asked"] == plain["tokens"]["computed"]
    assert cached["tokens"]["asked"] == cached["tokens"]["computed"] + cached["tokens"]["reused"]
    assert 0 < cached["hit_rate"] < 1
    assert cached["ratios"].keys() == {"transformers_over_step", "uncached_over_step"}
    assert rows[0]["largest_loss_difference"] == 0
    assert all(row["largest_loss_difference"] < EPSILON_ROUNDING for row in rows)
    assert all(backend.closed for backend, _ in started)
    assert {environment["MEZO_SGLANG_PYTHON"] for _, environment in started} == {"python"}
    assert started[0][0].spec.server_args == {"sleep_on_idle": True}
    assert engine_variables() == before


def test_engines_that_are_not_installed_are_left_out_unless_asked_for(
    model: str, started: list[tuple[InProcess, dict[str, str]]], capsys: Capture
) -> None:
    common = ["engine", "--model", model, "--workload", "sst2", "--rounds", "1", "--batch-size", "2"]
    assert main([*common, "--markdown"]) == 0
    printed = capsys.readouterr()
    assert "left out: engine 'sglang' needs the package sglang" in printed.err
    assert "| 2 of the packaged reviews | transformers |" in printed.out
    assert main([*common, "--engine", "vllm"]) != 0
    assert "engine 'vllm' needs the package vllm" in capsys.readouterr().err
    assert main([*common, "--engine", "vlm"]) != 0
    assert "unknown engine 'vlm'; did you mean 'vllm'?" in capsys.readouterr().err


def test_a_row_that_is_too_long_is_told(tmp_path: Path, capsys: Capture) -> None:
    config = json.loads((toy.model(tmp_path / "toy") / "config.json").read_text())
    (tmp_path / "toy" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    arguments = ["--model", str(tmp_path / "toy"), "--engine", "transformers", "--workload", "icl"]
    assert main(["engine", *arguments]) != 0
    assert "workload 'icl': a row has" in capsys.readouterr().err
