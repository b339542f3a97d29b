"""A run whose loss explodes or is not finite: it stops, keeps what was good, and says what to do."""

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tests import resumed
from tests.cli import toy
from tests.parallel.ranks import base_and_data, train
from tests.resumed import Copying, base, config_for, copy, trainer
from tests.tiers import mostly_slow
from tests.tiny_models import same_files

from mezo.algorithm import NonFiniteLoss
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.training.monitors import ExplodingLoss

# Words that can be learned, and words that have both labels: at a rate that rises for as long as the run goes on,
# the first are learned, and then the second make of it what a rate too large makes of any run.
ROWS = [*resumed.ROWS, *({"sentence": s, "label": label} for s in ("pop", "sip") for label in (0, 1))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


def exploding(model: Path, **changes: Any) -> MeZOConfig:
    values = dict(num_steps=400, learning_rate=0.04, warmup_steps=380, schedule="constant", batch_size=12)
    return config_for(model, **{**values, "eval_every": 0, "snapshot_every": 0, **changes})


@pytest.fixture(scope="module")
def stopped(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that exploded, with copies of it as a kill would have left it; and what it said."""
    folder = tmp_path_factory.mktemp("stopped")
    watching = Copying(folder / "run", folder, (30, 120))
    with pytest.raises(ExplodingLoss) as caught:
        trainer(exploding(model), ROWS, output=folder / "run", observer=watching, artifacts=True).train()
    return folder, str(caught.value)


def steps_of(run: Path) -> int:
    return len(trajectory.read(RunFolder.open(run).trajectory).records)


def test_an_exploded_run_is_whole(stopped: tuple[Path, str], tmp_path: Path) -> None:
    folder, text = stopped
    run, done = RunFolder.open(folder / "run"), steps_of(folder / "run")
    assert text.startswith(f"step {done}: the loss has exploded")
    assert done < 400
    assert len(read_metrics(run.metrics).steps) == done
    assert json.loads(run.events.read_text().splitlines()[-1])["event"] == "stopped"
    assert same_files(replay(run.path, output=tmp_path / "again"), run.model)


def test_what_it_says_brings_back_better_weights(
    stopped: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text = stopped
    found = re.search(r"`mezo (trajectory cut .*?)` and `mezo (replay .*?)`", text)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    assert [main(shlex.split(line)) for line in found.groups()] == [0, 0]

    def loss(path: Path) -> float:
        config = config_for(path, eval_every=0)
        return trainer(config, ROWS).evaluate(MeZODataset(ROWS, task="sst2").encode(*tools(path), 512)).loss

    good = loss(tmp_path / "good/model")
    assert good < math.log(2) < loss(folder / "run/model")


def tools(path: Path) -> tuple[Any, Any]:
    from mezo.models.load import load

    loaded = load(str(path), "float32", "cpu", False, lambda text: None)
    return loaded.tokenizer, loaded.kind


@pytest.mark.slow
def test_turned_off_the_run_goes_on_and_its_steps_are_the_same(
    stopped: tuple[Path, str], model: Path, tmp_path: Path
) -> None:
    folder, _ = stopped
    copy(folder / "run", tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before = trajectory.read(run.trajectory).records
    with pytest.raises(ExplodingLoss):  # as it is, it does no further step
        trainer(None, ROWS, resume=run.path).train()
    assert np.array_equal(trajectory.read(run.trajectory).records, before)
    free = MeZOConfig.load(run.config, stop_on_explosion=False)
    trainer(free, ROWS, resume=run.path).train()
    trainer(exploding(model, stop_on_explosion=False), ROWS, output=tmp_path / "free").train()
    assert steps_of(run.path) == 400
    assert run.trajectory.read_bytes() == RunFolder(tmp_path / "free").trajectory.read_bytes()


@pytest.mark.parametrize("at", mostly_slow([30, 120], lambda at: at == 120))
def test_resumed_it_stops_at_the_same_step_with_the_same_bytes(
    stopped: tuple[Path, str], tmp_path: Path, at: int
) -> None:
    folder, text = stopped
    copy(folder / str(at), tmp_path / "run")
    with pytest.raises(ExplodingLoss) as caught:
        trainer(None, ROWS, resume=tmp_path / "run").train()
    assert str(caught.value).replace(str(tmp_path), str(folder)) == text
    again, whole = RunFolder(tmp_path / "run"), RunFolder(folder / "run")
    assert again.trajectory.read_bytes() == whole.trajectory.read_bytes()


# ---------------------------------------------------------------- not finite


def test_after_a_rise_the_way_back_is_told(
    stopped: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, text = stopped
    copy(folder / "run", tmp_path / "run")
    free = MeZOConfig.load(RunFolder(tmp_path / "run").config, stop_on_explosion=False)
    again = trainer(free, ROWS, resume=tmp_path / "run")
    monkeypatch.setattr(
        again.engine, "losses_each", lambda batches, probes: [[math.nan] * len(probes)] * len(batches)
    )
    with pytest.raises(
        NonFiniteLoss, match=r"the loss is not finite .* the loss was lowest around step \d+"
    ) as caught:
        again.train()
    steps = re.search(r"--steps (\d+)", text)
    assert steps is not None
    assert f"--steps {steps[1]} " in str(caught.value)
    assert steps_of(tmp_path / "run") == steps_of(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_loss_that_is_not_finite_ends_the_command_in_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """At a rate at which the weights leave the range of their type: the message says that it was the update."""
    model, data = toy.model(tmp_path / "model"), toy.reviews(tmp_path / "data")
    line = ["train", "--model", str(model), "--data", str(data), "--steps", "60", "--batch-size", "4"]
    rate = ["--learning-rate", "1e40", "--dtype", dtype, "--output", str(tmp_path / "run")]
    assert main([*line, *rate]) == 2
    (text,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("mezo: "))
    assert re.match(
        r"mezo: error: step \d+: the loss is not finite .* Lower the learning rate or epsilon", text
    )
    run = RunFolder.open(tmp_path / "run")
    done = int(text.split(":")[2].split()[1])
    assert steps_of(run.path) == len(read_metrics(run.metrics).steps) == done
    assert main(["replay", str(run.path), "--output", str(tmp_path / "again")]) == 0
    assert same_files(tmp_path / "again/model", run.model)
    found = re.search(r"overflowed the weights; .*`mezo (trajectory cut .*?)` and `mezo (replay .*?)`", text)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    assert [main(shlex.split(again)) for again in found.groups()] == [0, 0]
    kept = load_file(tmp_path / "good/model/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


@pytest.mark.slow
def test_of_two_processes_one_says_it_and_the_other_waits_until_all_is_saved(tmp_path: Path) -> None:
    arguments = [*base_and_data(tmp_path), "--gradient-accumulation", "2", "--steps", "20"]
    ended = train(2, *arguments, "--learning-rate", "1e40", "--output", str(tmp_path / "run"))
    assert ended.returncode != 0
    (text,) = (line for line in ended.stderr.splitlines() if line.startswith("mezo: "))
    assert "the loss is not finite" in text
    run = RunFolder.open(tmp_path / "run")
    assert steps_of(run.path) == len(read_metrics(run.metrics).steps)
    assert json.loads(run.events.read_text().splitlines()[-1])["event"] == "stopped"
    assert (run.model / "model.safetensors").is_file()
