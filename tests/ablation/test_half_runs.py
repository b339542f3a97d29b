"""A run of a study that was ended half-way goes on from there, to the numbers of one that never was."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli import toy
from tests.tiers import mostly_slow

from mezo.ablation.run import training
from mezo.ablation.run.folder import REQUEST, StudyFolder
from mezo.ablation.run.measures import read_outcome
from mezo.ablation.run.training import train_one
from mezo.config import MeZOConfig
from mezo.events import StepRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.util.atomic_files import write_text

STEPS = 8
VARIANTS: list[dict[str, Any]] = [
    {},
    {"final_directions": 3},
    {"estimator": "one-point"},
    {"optimizer": "adam"},
]


class Ended(BaseException):
    """What nothing catches, as a kill."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    model = str(toy.model(tmp_path_factory.mktemp("models") / "toy"))
    data = str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))

    def request(**settings: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"batch_size": 2, "num_steps": STEPS, "eval_every": 3, "learning_rate": 1e-2}
        config = MeZOConfig.build(model=model, data=data, device="cpu", **{**values, **settings})
        return {"config": config.model_dump(mode="json"), "evaluation_seed": 0, "metrics": []}

    return request


def told(folder: Path) -> list[dict[str, Any]]:
    """All that a run recorded but the times."""
    found = read_metrics(RunFolder(folder).metrics)
    timed = ("seconds", "seconds_saved")
    return [
        {k: v for k, v in dataclasses.asdict(record).items() if k not in timed}
        for record in (*found.steps, *found.evals)
    ]


@pytest.mark.parametrize("settings", mostly_slow(VARIANTS, lambda v: "final_directions" in v), ids=str)
def test_a_half_run_goes_on_to_the_same_numbers(
    asked: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    request, half, made = asked(**settings), tmp_path / "half", []
    train_one(request, tmp_path / "whole")

    follow = training._Log.on_step

    def step(log: Any, record: StepRecord) -> None:
        made.append(record.step)
        if len(made) in (3, 6):
            raise Ended
        follow(log, record)

    monkeypatch.setattr(training._Log, "on_step", step)
    for _ in range(2):
        with pytest.raises(Ended):
            train_one(request, half)
    train_one(request, half)
    assert made == list(range(STEPS))  # none twice
    assert told(half) == told(tmp_path / "whole")
    passes = {read_outcome(folder).forward_passes for folder in (half, tmp_path / "whole")}
    assert len(passes) == 1
    assert RunFolder(half).trajectory.read_bytes() == RunFolder(tmp_path / "whole").trajectory.read_bytes()


def part_of(folder: StudyFolder, process: int, text: str, *, begun: bool = True) -> Path:
    part = folder.runs / f"key.{process}.part"
    part.mkdir(parents=True)
    write_text(part / REQUEST, text)
    if begun:
        write_text(part / "config.yaml", "")
    return part


def test_which_half_is_gone_on_with(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    part_of(folder, 1, "asked")
    part, resumes = folder.begin("key", "asked")
    assert (resumes, part.name) == (True, f"key.{os.getpid()}.part")
    assert [path.name for path in folder.runs.iterdir()] == [part.name]
    folder.fail("key", part, killed=True)  # its process was killed, and the study ended
    assert folder.begin("key", "asked") == (part, True)
    assert not (part / "killed").exists()
    assert folder.begin("key", "otherwise asked") == (part, False)
    assert not (part / "config.yaml").exists()
    folder.fail("key", part)  # a failure of its own is made again from its start
    assert folder.begin("key", "otherwise asked") == (part, False)


def test_what_had_not_begun_is_removed(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    part_of(folder, 1, "asked", begun=False)
    folder.take_over()
    assert list(folder.runs.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["study", "run"])
def test_a_study_killed_in_the_midst_of_runs_repeats_no_step(
    asked: Callable[..., dict[str, Any]], tmp_path: Path, whom: str
) -> None:
    """Both the study's process and that of a run are killed at any step; results equal those of one never killed."""
    config = asked()["config"]
    plan = tmp_path / "plan.json"
    study = {"name": "scale", "ablated_part": "epsilon", "action": "REPLACE", "replacement": [0.01]}
    plan.write_text(json.dumps([study]))
    command = [sys.executable, "-m", "mezo", "ablate", str(plan), "--model", config["model"], "--data"]
    command += [config["data"], "--batch-size", "2", "--steps", "400", "--eval-every", "100", "--seeds", "1"]
    command += ["--device", "cpu", "--no-timing", "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    runs = tmp_path / "killed" / "runs"
    for wanted in (1, 2):
        with subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and _lines(runs) < 120 * wanted:
                time.sleep(0.01)
            if whom == "study":
                process.kill()
            else:
                children = Path(f"/proc/{process.pid}/task").glob("*/children")
                for child in {pid for path in children for pid in path.read_text().split()}:
                    os.kill(int(child), signal.SIGKILL)
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    for whole in (tmp_path / "whole" / "runs").iterdir():
        assert told(runs / whole.name) == told(whole)
        events = (runs / whole.name / "events.jsonl").read_text().splitlines()
        resumed = [json.loads(line)["step"] for line in events if json.loads(line)["event"] == "resumed"]
        assert all(step > 0 for step in resumed)
    assert any("resumed" in path.read_text() for path in runs.glob("*/events.jsonl"))


def _lines(runs: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in runs.glob("*/metrics.jsonl"))
