"""All matrices along rank-one directions on vLLM and SGLang themselves: probes are adapters, and the weights move exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.engines.serving.conftest import need, settle
from tests.engines.serving.runs import (
    FULL,
    ROWS,
    TEMPLATE,
    WORDS,
    rounding_of_a_slope,
    tiny_llama,
    train,
    trainer,
)
from tests.tiers import mostly_slow
from tests.tiny_models import same_files
from tests.training.test_samples import Listening

from mezo.data import MeZODataset
from mezo.engines.serving import subprocess
from mezo.engines.serving.engine import Outputs, ServingEngine
from mezo.engines.serving.full_adapters import RankOneAdapters
from mezo.engines.workers.verify import sum_of, whole
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.scoring import Example
from mezo.tasks import task_for
from mezo.training.trainer import MeZOTrainer
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

pytestmark = pytest.mark.engine

RANK_ONE: dict[str, Any] = {
    **FULL,
    "noise": "rank-one",
    "train": ("_proj",),
    "row_directions": 2,
    "num_steps": 6,
}
CASES = mostly_slow(
    [("vllm", 1), ("vllm", 2), ("sglang", 1), ("sglang", 2)],
    fast=lambda engine, tp: engine == "vllm" and tp == 2,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize(("engine", "tp"), CASES)
def test_a_run_has_the_slopes_of_transformers_resumes_and_replays(
    engine: str, tp: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(engine)
    settle(monkeypatch, engine)
    monkeypatch.setattr(subprocess, "START_SECONDS", 420.0)
    monkeypatch.setenv("MEZO_ENGINE_SECONDS", "240")
    train(model, tmp_path / "transformers", **RANK_ONE)
    begun = trainer(model, tmp_path / "run", Listening(3), engine=engine, tensor_parallel=tp, **RANK_ONE)
    data = MeZODataset(ROWS, task=task_for("sst2", WORDS, TEMPLATE))
    try:
        begun.train()
    finally:
        begun.close()
    there = trajectory.read(tmp_path / "run" / "trajectory.mezo").records
    assert len(there) == 3
    made = MeZOTrainer(None, train=data, resume=tmp_path / "run")
    try:
        made.train()
        assert isinstance(made.engine, ServingEngine)
        _the_engine_is_at_what_was_tuned(made.engine, tmp_path / "run" / "model")
        _probes_write_together_as_one_by_one(made.engine)
    finally:
        made.close()
    records = [
        trajectory.read(tmp_path / name / "trajectory.mezo").records for name in ("transformers", "run")
    ]
    assert records[0].shape == records[1].shape == (6, 2)
    # each of two parts has half of the rows: its mean rounds as that of four rows does, or better
    tolerance = 2 * rounding_of_a_slope(RANK_ONE["epsilon"])
    np.testing.assert_allclose(records[1], records[0], rtol=0, atol=tolerance)
    assert np.abs(records[0]).max() > 100 * tolerance
    assert same_files(replay(tmp_path / "run", output=tmp_path / "again"), tmp_path / "run" / "model")


def _the_engine_is_at_what_was_tuned(engine: ServingEngine, folder: Path) -> None:
    """Bit for bit, after probes of which each was another model."""
    placement = engine.placement
    assert isinstance(placement, RankOneAdapters)
    assert placement.workers.keep == "alone"
    (file,) = folder.glob("*.safetensors")
    saved = load_file(file)
    sums = placement.workers.checksums()
    assert len(sums) == 14
    assert sums == {name: sum_of(whole(name, saved[name])) for name in sums}


def _probes_write_together_as_one_by_one(engine: ServingEngine) -> None:
    probes = [THETA, Probe(31, 0.05), Probe(31, -0.05), Probe(32, 0.05)]
    rows = Outputs([Example(tuple(range(start, start + 40)), ((9,),), 0) for start in (5, 50)])
    writing = Writing(6, ())
    together = engine._written([rows] * len(probes), probes, writing)
    assert together == [engine._written([rows], [probe], writing)[0] for probe in probes]
    assert len({tuple(texts) for texts in together}) > 2
