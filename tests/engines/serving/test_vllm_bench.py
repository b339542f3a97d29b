"""`python -m benchmarks engine` on vLLM itself; no figure of time is looked at."""

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from tests.engines.serving.conftest import need
from tests.engines.serving.envs import python_of
from tests.engines.serving.runs import tiny_llama

from mezo.engines.serving import subprocess


@pytest.mark.engine
def test_most_tokens_of_16_shot_prompts_come_from_the_cache(
    tmp_path: Path, engine_env: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("vllm")
    monkeypatch.setattr(subprocess, "START_SECONDS", 420.0)
    monkeypatch.setenv("MEZO_ENGINE_SECONDS", "180")
    model = str(tiny_llama(tmp_path / "llama", positions=4096))
    options = ["--workload", "icl", "--rounds", "1", "--engine", "transformers", "--engine", "vllm", "--json"]
    assert main(["engine", "--model", model, "--vllm-python", str(python_of("vllm")), *options]) == 0
    plain, found = json.loads(capsys.readouterr().out)["rows"]
    assert (plain["engine"], found["engine"]) == ("transformers", "vllm")
    assert found["hit_rate"] > 0.9
    assert found["largest_loss_difference"] < 2**-20  # as in the other tests of this engine
