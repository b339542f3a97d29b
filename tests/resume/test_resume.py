"""A run that was broken off goes on to the bytes of one that never was."""

from pathlib import Path
from typing import Any

import pytest
from tests.resumed import Copying, base, config_for, files_of, resume, trainer, what_counts
from tests.tiers import mostly_slow

from mezo.runs import event_log

# settings that keep something from one step to the next, each in its own way
HOW: dict[str, dict[str, Any]] = {
    "sgd": dict(),
    "lora": dict(tuning="lora", dtype="bfloat16"),
    "prefix": dict(tuning="prefix"),
    "momentum": dict(optimizer="momentum", dtype="bfloat16"),
    "adam": dict(optimizer="adam"),
    "adam-rebuilt": dict(optimizer="adam-rebuilt", history=3, blocks="random"),
    "one-point": dict(estimator="one-point", epsilon=1e-2, learning_rate=1e-6),
    "clipped": dict(clip_quantile=0.5, num_directions=2),
    "cone": dict(estimator="cone", cone_warmup=5, num_directions=2),
    "cone, clipped": dict(
        estimator="cone", cone_warmup=5, clip_quantile=0.5, num_directions=2, snapshot_every=0
    ),
    "layer-scaled": dict(layer_scaling="variance"),
    "scales that are learned": dict(layer_scaling="learned", clip_quantile=0.9),
    "growing": dict(final_directions=4),
    "auto": dict(learning_rate="auto", batch_size=4),
    "auto, odd batches": dict(learning_rate="auto", optimizer="momentum"),
    "auto, by row": dict(
        learning_rate="auto", batch_size=4, row_directions=2, noise="rank-one", tuning="lora"
    ),
    "no snapshots": dict(snapshot_every=0, optimizer="momentum", estimator="one-point", learning_rate=1e-6),
    "regenerate": dict(memory="regenerate", dtype="bfloat16"),
    "store-layer": dict(memory="store-layer"),
    "accumulating": dict(gradient_accumulation=2, train_examples=7),
    "by row": dict(row_directions=3, noise="rank-one", dtype="bfloat16"),
    "by row, remembering": dict(
        row_directions=3, noise="rank-one", estimator="one-point", learning_rate=1e-6, clip_quantile=0.5
    ),
}
FAST = {"auto", "one-point", "cone", "cone, clipped", "regenerate", "by row"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("how", mostly_slow(HOW, lambda name: name in FAST))
def test_killed_anywhere_it_ends_in_the_same_bytes(model: Path, tmp_path: Path, how: str) -> None:
    config = config_for(model, **HOW[how])
    killed_at = (2, 5, 11)  # before the first snapshot, after one and at an evaluation, before the end
    watching = Copying(tmp_path / "run", tmp_path / "killed", killed_at)
    whole = trainer(config, output=tmp_path / "run", observer=watching).train()
    expected = what_counts(tmp_path / "run", whole)
    for step in killed_at:
        result = resume(tmp_path / "killed" / str(step))
        assert what_counts(tmp_path / "killed" / str(step), result) == expected
        assert result.losses == whole.losses
        assert [e.loss for e in result.evals] == [e.loss for e in whole.evals]


@pytest.mark.slow
def test_everything_that_a_run_leaves_is_left_by_a_resumed_one(model: Path, tmp_path: Path) -> None:
    config = config_for(model, num_steps=5)
    watching = Copying(tmp_path / "run", tmp_path / "killed", (4,))
    whole = trainer(config, output=tmp_path / "run", observer=watching, artifacts=True).train()
    result = resume(tmp_path / "killed/4", artifacts=True)
    assert what_counts(tmp_path / "killed/4", result) == what_counts(tmp_path / "run", whole)
    assert files_of(tmp_path / "killed/4/model") == files_of(tmp_path / "run/model")
    assert [line["event"] for line in event_log.read(tmp_path / "killed/4/events.jsonl")] == [
        "started",
        "resumed",
        "finished",
    ]
