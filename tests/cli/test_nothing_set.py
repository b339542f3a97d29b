"""`mezo train` with a model, a task and data, and no other setting: the loss of held-out examples falls, whatever the task."""

import json
from pathlib import Path

import pytest
from tests.cli import toy
from tests.tiers import mostly_slow

from mezo import api
from mezo.build.schedule import objective_for
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.objectives import OutputObjective
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.tasks import TASKS
from mezo.tasks.chat import Chat

STEPS = 60
# a reward of what an untrained model writes is that of noise, and the toy has no chat template
NAMES = [
    name
    for name, task in TASKS.items()
    if not isinstance(task, Chat)
    and not isinstance(objective_for(MeZOConfig.build(task=name), task), OutputObjective)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.model(tmp_path_factory.mktemp("models") / "toy")


@pytest.mark.parametrize("name", mostly_slow(NAMES, lambda name: name in ("sst2", "squad")))
def test_the_loss_falls(name: str, model: Path, tmp_path: Path) -> None:
    rows = [json.dumps(sample) + "\n" for sample in TASKS[name].samples]
    (tmp_path / "data").mkdir()
    for split, times in (("train", 16), ("validation", 4)):
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(rows * times))
    asked = ["train", "--model", model, "--task", name, "--data", tmp_path / "data"]
    assert main([*map(str, asked), "--steps", str(STEPS), "--output", str(tmp_path / "run")]) == 0
    evals = read_metrics(RunFolder(tmp_path / "run").metrics).evals
    assert (evals[0].step, evals[-1].step) == (0, STEPS)
    # of the model itself: a head start on examples as alike as these can leave nothing to gain
    before = api.evaluate(MeZOConfig.build(model=str(model), task=name, data=str(tmp_path / "data")))
    assert evals[-1].loss < before["loss"]


def test_ten_tasks_are_among_them() -> None:
    assert len(NAMES) >= 10
