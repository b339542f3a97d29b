"""A run by rewards on vLLM itself: its outputs, samples and weights, whole, resumed and replayed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.serving.conftest import need
from tests.engines.serving.writes import writer
from tests.tiny_models import same_files
from tests.training.test_samples import Listening, lines

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import EngineSpec
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.training.trainer import MeZOTrainer

pytestmark = pytest.mark.engine

ROWS = [
    {"prompt": text, "completion": " a"}
    for text in ("The old man", "What is", "She went on", "They had been")
]


def run(model: Path | None, folder: Path, steps: int = 100, **settings: Any) -> None:
    """So many steps at most; without a model, of a run that is there."""
    config = None if model is None else MeZOConfig.build(model=str(model), **settings)
    where: dict[str, Any] = {"resume": folder} if model is None else {"output": folder}
    MeZOTrainer(config, train=MeZODataset(ROWS), observer=Listening(steps), **where).train()


@pytest.fixture
def one_engine(engine_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EngineSpec]]:
    """The first run starts vLLM as any run does. The next one goes on in its process, which saves a minute."""
    need("vllm")
    monkeypatch.setattr(subprocess, "START_SECONDS", 420.0)
    start, close = subprocess.start, subprocess.Hosted.close
    held: list[subprocess.Hosted] = []
    asked: list[EngineSpec] = []

    def once(engine: str, spec: EngineSpec, **more: Any) -> subprocess.Hosted:
        asked.append(spec)
        assert spec == asked[0]
        held[:] = held or [start(engine, spec, **more)]
        return held[0]

    monkeypatch.setattr(subprocess, "start", once)
    monkeypatch.setattr(subprocess.Hosted, "close", lambda self: None)
    yield asked
    for hosted in held:
        close(hosted)


def test_a_population_of_outputs_moves_the_adapter_and_resumes(
    one_engine: list[EngineSpec], tmp_path: Path
) -> None:
    """Tokens are drawn, with a seed for each output, so a resumed run has the outputs of the whole one."""
    model = writer(tmp_path / "model")
    settings: dict[str, Any] = dict(
        engine="vllm",
        tuning="lora",
        lora_rank=4,
        max_length=32,
        batch_size=2,
        epsilon=0.1,
        estimator="es",
        num_directions=3,
        num_steps=3,
        eval_every=1,
        show_samples=2,
        objective="length(most=3)",
        max_new_tokens=8,
        stop=("!", "a"),
        temperature=1.0,
        samples=2,
        learning_rate=0.05,
    )
    run(model, tmp_path / "whole", **settings)
    found = lines(tmp_path / "whole")
    assert [entry["step"] for entry in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    for entry in found:
        text = entry["output"]
        assert not set(text) & {"!", "a"}
        assert entry["reward"] == max(0.0, 1 - max(0, len(text) - 3) / 3)
    assert len({entry["output"] for entry in found}) > 2
    records = trajectory.read(tmp_path / "whole" / "trajectory.mezo").records
    assert records.shape[0] == 3
    assert np.abs(records).max(axis=1).min() > 0
    assert same_files(replay(tmp_path / "whole", output=tmp_path / "again"), tmp_path / "whole" / "adapter")

    run(model, tmp_path / "run", 2, **settings)
    assert [entry["step"] for entry in lines(tmp_path / "run")][-1] < 3
    run(None, tmp_path / "run")
    assert len(one_engine) == 3
    for name in ("trajectory.mezo", "samples.jsonl", "samples.html"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert same_files(tmp_path / "run" / "adapter", tmp_path / "whole" / "adapter")
