"""TensorBoard, MLflow and W&B as their own packages read them: a run and its resumption are one log."""

import time
from pathlib import Path

import numpy as np
import pytest
from tests.resumed import Copying, base, config_for, copy, trainer

from mezo.config import MeZOConfig
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.sinks import Several, background, logging_to, run_ids

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages, about each other


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


def killed(model: Path, tmp_path: Path, *names: str) -> Path:
    """A run as it is on the disk after its seventh step, and logged to its end: a log may be ahead of its run."""
    config = config_for(model)
    stop = tmp_path / "whole"
    with logging_to(names, run=stop, config=config, note=pytest.fail) as logs:
        observer = Several(logs, Copying(stop, tmp_path, (7,)))
        trainer(config, output=stop, observer=observer).train()
    flushed(names)
    copy(stop / "logs", tmp_path / "7/logs")
    return tmp_path / "7"


def resume_logged(folder: Path, *names: str) -> None:
    config = MeZOConfig.load(RunFolder(folder).config)
    with logging_to(names, run=folder, config=config, note=pytest.fail) as logs:
        trainer(None, resume=folder, observer=logs).train()
    flushed(names)


def flushed(names: tuple[str, ...]) -> None:
    """Wait for W&B's own process, which writes its file; the end of a command does."""
    if "wandb" in names:
        import wandb

        wandb.teardown()


def curve(folder: Path) -> dict[int, float]:
    """(step, loss) of the run."""
    return {r.step: r.loss for r in read_metrics(RunFolder(folder).metrics).steps}


@pytest.mark.slow
def test_tensorboard_has_one_curve_of_a_run_and_its_resumption(model: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = killed(model, tmp_path, "tensorboard")
    resume_logged(folder, "tensorboard")
    read = events.EventAccumulator(str(folder / "logs/tensorboard"))
    read.Reload()
    # the format holds single precision
    found = {e.step: e.value for e in read.Scalars("train/loss")}
    assert found == {step: float(np.float32(loss)) for step, loss in curve(folder).items()}
    assert len(read.Scalars("train/loss")) == 12
    assert [e.step for e in read.Scalars("validation/accuracy")] == [0, 5, 10, 12]
    assert len(list(folder.glob("logs/tensorboard/events*"))) == 2


@pytest.mark.slow
def test_mlflow_has_one_run_of_a_run_and_its_resumption(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    folder = killed(model, tmp_path, "mlflow")
    (id,) = run_ids.read(folder / "logs").values()
    client = mlflow.MlflowClient()
    resume_logged(folder, "mlflow")
    experiment = client.get_experiment_by_name("mezo")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (id, "FINISHED")
    assert found.data.params["learning_rate"] == "0.001"
    history = client.get_metric_history(id, "train/loss")
    assert {m.step: m.value for m in history} == curve(folder)
    assert (
        found.data.metrics["validation/accuracy"]
        == read_metrics(RunFolder(folder).metrics).evals[-1].accuracy
    )


@pytest.mark.slow
def test_wandb_keeps_a_log_without_a_key_and_goes_on_with_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(background, "PATIENCE", 60.0)
    folder = killed(model, tmp_path, "wandb")
    (id,) = run_ids.read(folder / "logs").values()
    time.sleep(1.1)  # W&B names its folders by the second
    resume_logged(folder, "wandb")
    assert run_ids.read(folder / "logs") == {"wandb": id}
    logs = list(folder.glob(f"logs/wandb/offline-run-*-{id}/run-{id}.wandb"))
    assert len(logs) == 2
    # their format has no reader outside the package; in it, each number is its JSON
    written = b"".join(path.read_bytes() for path in logs)
    assert [step for step, loss in curve(folder).items() if repr(loss).encode() not in written] == []
    assert b"train/projected_gradient" in written
    assert b"validation/accuracy" in written
