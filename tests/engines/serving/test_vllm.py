"""MeZO on vLLM: the walk of the transformers engine, whatever the number of workers; death is an error."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.engines.serving.conftest import need
from tests.engines.serving.runs import (
    FULL,
    LORA,
    assert_same_walk,
    grads,
    rounding_of_a_slope,
    tiny_llama,
    train,
    trainer,
)
from tests.tiny_models import same_files

import mezo
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import Ask
from mezo.engines.serving.engine import ServingEngine
from mezo.engines.serving.full import InWorkers
from mezo.engines.serving.requests import check_fresh
from mezo.engines.serving.subprocess import EngineDied
from mezo.errors import MezoError
from mezo.events import Observer, StepRecord
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.types import Probe

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _vllm(engine_env: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With limits that are hard: no test waits for an engine that says nothing."""
    need("vllm")
    monkeypatch.setattr(subprocess, "START_SECONDS", 420.0)
    monkeypatch.setenv("MEZO_ENGINE_SECONDS", "180")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> mezo.TrainResult:
    return train(model, tmp_path_factory.mktemp("transformers") / "run", **LORA)


@pytest.mark.parametrize("tp", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_twenty_lora_steps_are_those_of_transformers(
    tp: int, model: Path, plain: mezo.TrainResult, tmp_path: Path
) -> None:
    found = train(model, tmp_path / "run", engine="vllm", tensor_parallel=tp, **LORA)
    assert len(found.steps) == 20
    assert_same_walk(plain, found)
    # 4 rows of some 110 tokens: of the 3 x 96 that can come from whole blocks of another row, most do
    assert all(step.tokens_reused > 0.4 * step.tokens_asked for step in found.steps)


@pytest.mark.slow
def test_twenty_lora_steps_of_a_real_model(tmp_path: Path) -> None:
    # at the other tests' rate this model diverges, and then a rounding parts transformers from itself
    settings = {**LORA, "learning_rate": 1e-3}
    plain = train("smollm2-135m", tmp_path / "transformers", **settings)
    found = train("smollm2-135m", tmp_path / "vllm", engine="vllm", **settings)
    assert_same_walk(plain, found, layers=30)


def test_ten_full_steps_are_those_of_transformers_and_a_missing_flush_is_caught(
    model: Path, tmp_path: Path
) -> None:
    plain = train(model, tmp_path / "transformers", **FULL)
    made = trainer(model, tmp_path / "vllm", engine="vllm", tensor_parallel=2, **FULL)
    try:
        assert_same_walk(plain, made.train())
        again = replay(tmp_path / "vllm", output=tmp_path / "again")
        assert same_files(again, tmp_path / "vllm" / "model")
        assert isinstance(made.engine, ServingEngine)
        _a_missing_flush_is_caught(made.engine)
    finally:
        made.close()


def _a_missing_flush_is_caught(engine: ServingEngine) -> None:
    """Keys and values of theta, read at theta + eps z, give another value than those of theta + eps z."""
    assert isinstance(engine.placement, InWorkers)
    backend, workers = engine.backend, engine.placement.workers
    row = tuple(range(5, 105))  # three blocks of the cache and a rest
    ask = [Ask(row, choices=(7, 8))]
    backend.flush()
    backend.score(ask)
    workers.go(Probe(11, 0.05))  # and no flush
    stale = backend.score(ask)
    backend.flush()
    true = backend.score(ask)
    workers.restore()
    assert stale[0].cached_tokens == 96
    assert true[0].cached_tokens == 0
    # far beyond rounding, which is 2^-20
    assert np.abs(np.subtract(stale[0].logprobs, true[0].logprobs)).max() > 1e-3
    check_fresh(ask, true)
    with pytest.raises(MezoError, match="they were computed with other weights"):
        check_fresh(ask, stale)


class Murder(Observer):
    """Kills one of the engine's workers in the middle of a step."""

    def __init__(self, after: int) -> None:
        self.after, self.group = after, 0

    def on_step(self, record: StepRecord) -> None:
        if record.step == self.after:
            (child,) = (
                p
                for p in psutil.Process().children()
                if "mezo.engines.serving.subprocess_main" in p.cmdline()
            )
            self.group = child.pid
            (worker,) = (p for p in child.children(recursive=True) if "Worker_TP1" in " ".join(p.cmdline()))
            threading.Timer(0.05, worker.kill).start()


def test_the_death_of_a_worker_is_an_error_and_the_trajectory_stays(
    model: Path, plain: mezo.TrainResult, tmp_path: Path
) -> None:
    murder = Murder(after=3)
    made = trainer(model, tmp_path / "run", murder, engine="vllm", tensor_parallel=2, **LORA)
    try:
        with pytest.raises(EngineDied, match=r"^vllm ended during .*; its last words: ") as told:
            made.train()
        assert "\n" not in str(told.value)
        with pytest.raises(EngineDied):  # and stays one
            made.evaluate(made.train_set)
    finally:
        made.close()
    assert _gone(murder.group)
    records = trajectory.read(tmp_path / "run" / "trajectory.mezo").records
    assert 4 <= len(records) < 20
    same = grads(plain)[: len(records)]
    np.testing.assert_allclose(records[:, 0], same, rtol=0, atol=rounding_of_a_slope(LORA["epsilon"]))


def _gone(group: int, seconds: float = 30.0) -> bool:
    """Whether nothing of a process group runs; its members were killed, and may take a moment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        running: list[Any] = [
            p
            for p in psutil.process_iter(["status"])
            if _group(p.pid) == group and p.info["status"] != "zombie"
        ]
        if not running:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
