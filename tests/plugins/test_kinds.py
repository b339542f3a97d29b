"""A plugin of each kind: the one in examples/plugins trains, resumes and replays to the same bytes, or says why not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import ROWS, base

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.data.from_config import task_of, training_set
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.resume.compatibility import Changed
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.training.trainer import MeZOTrainer
from mezo.util import plugins
from mezo.weights.fingerprint import fingerprint

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
# The setting that names it -> what of the example it names.
NAMES = {
    "estimator": "OneSidedTwice(side=-1.0)",
    "optimizer": "InverseTime(halved_at=3)",
    "objective": "Margin(width=2.0)",
    "task": "Letters",
    "metrics": "ERROR_RATE",
    "tuning": "gains",
    "data_format": "lines",
    "engine": "start",
}
FILES = {setting: f"{setting.removesuffix('s') if setting == 'metrics' else setting}.py" for setting in NAMES}
KINDS = pytest.mark.parametrize("setting", NAMES)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a person works in: copies of the plugins, a model, and rows."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    base(tmp_path / "base")
    (tmp_path / "rows.labelled").write_text("".join(f"{r['label']} {r['sentence']}\n" for r in ROWS))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    nobody_has_named_any(monkeypatch)
    return tmp_path


def nobody_has_named_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(plugins, "_trusted", set())


def name_of(setting: str) -> Any:
    name = f"{FILES[setting]}:{NAMES[setting]}"
    return (name,) if setting == "metrics" else name


def settings_for(setting: str) -> dict[str, Any]:
    return {
        "model": "base",
        "task": "sst2",
        "data": "rows.labelled" if setting == "data_format" else "rows.jsonl",
        "batch_size": 3,
        "num_steps": 8,
        "learning_rate": 1e-3,
        "snapshot_every": 3,
        "seed": 2,
        **({"tuning": "lora"} if setting == "engine" else {}),
        setting: name_of(setting),
    }


class StopsAfter(Observer):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, record: Any) -> None:
        if record.step + 1 == self.steps:
            raise KeyboardInterrupt


def train(config: MeZOConfig | None, **options: Any) -> Any:
    trainer = MeZOTrainer(config, **{"observer": Observer(), **options})
    try:
        return trainer.train()
    finally:
        trainer.close()


@KINDS
def test_it_trains_resumes_and_replays_to_the_same_bytes(
    setting: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MeZOConfig.build(**settings_for(setting))
    whole = train(config, output="whole")
    header = trajectory.read(place / "whole" / "trajectory.mezo").header
    (key,) = header["plugins"]
    assert key == f"{setting} {FILES[setting]}:{NAMES[setting].partition('(')[0]}"
    assert len(header["plugins"][key]["source"]) == 32

    assert train(config, output="cut", observer=StopsAfter(5)).interrupted
    nobody_has_named_any(monkeypatch)
    with pytest.raises(MezoError, match="a file cannot ask for"):  # the folder may be somebody else's
        train(None, resume="cut")
    resumed = train(MeZOConfig.build(**settings_for(setting)), resume="cut")
    assert len(resumed.steps) == len(whole.steps) == 8
    made = "adapter" if config.saves_adapter else "model"
    for file in (
        "trajectory.mezo",
        *(f"{made}/{path.name}" for path in (place / "whole" / made).glob("*.safetensors")),
    ):
        assert (place / "cut" / file).read_bytes() == (place / "whole" / file).read_bytes()

    nobody_has_named_any(monkeypatch)
    given = [str(name_of(setting))] if setting in plugins.REPLAYED else []
    written = replay("whole", output="again", observer=Observer(), plugins=given)
    for path in written.glob("*.safetensors"):
        assert path.read_bytes() == (place / "whole" / written.name / path.name).read_bytes()


@KINDS
def test_it_does_something(setting: str, place: Path) -> None:
    """A plugin that is not reached would pass the other tests."""
    settings = settings_for(setting)
    if setting == "engine":
        mark = "\nbegin = start\n\n\ndef start(spec, note):\n    Path('mark').touch()\n    return begin(spec, note)\n"
        file = place / FILES[setting]
        file.write_text(file.read_text() + "\nfrom pathlib import Path\n" + mark)
        train(MeZOConfig.build(**settings))
        assert (place / "mark").exists()
        return
    if setting == "data_format":
        config = MeZOConfig.build(**settings)
        assert [dict(row) for row in training_set(config, task_of(config))] == ROWS
        return
    (place / "data").mkdir()
    for split in ("train", "validation"):
        shutil.copy("rows.jsonl", f"data/{split}.jsonl")
    settings["data"] = "data"
    own = train(MeZOConfig.build(**settings))
    plain = train(MeZOConfig.build(**{key: value for key, value in settings.items() if key != setting}))
    if setting == "metrics":
        assert own.evals[-1].metrics == {"error-rate": 1 - plain.evals[-1].metrics["accuracy"]}
        assert (own.evals[-1].headline or ("",))[0] == "error-rate"
    else:
        assert fingerprint(own.model.named_parameters()) != fingerprint(plain.model.named_parameters())


@KINDS
def test_one_that_is_missing_is_named(setting: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MeZOConfig.build(**settings_for(setting))
    train(config, output="run", observer=StopsAfter(2))
    (place / FILES[setting]).unlink()
    with pytest.raises(
        MezoError, match=rf"run: {plugins.KINDS[setting].what} '{FILES[setting]}:.*cannot import"
    ) as said:
        train(config, resume="run")
    assert "\n" not in str(said.value)
    if setting in plugins.REPLAYED:
        with pytest.raises(MezoError, match=f"{FILES[setting]}.*cannot import"):
            replay("run", output="again", observer=Observer())
    else:
        assert replay("run", output="again", observer=Observer()).is_dir()


@KINDS
def test_one_whose_source_changed_is_refused(setting: str, place: Path) -> None:
    config = MeZOConfig.build(**settings_for(setting))
    train(config, output="run", observer=StopsAfter(2))
    file = place / FILES[setting]
    before = file.read_text()
    file.write_text(before + "\n# another thought\n")
    with pytest.raises(
        Changed, match=f"source of {setting} {FILES[setting]}.*bring the plugin's source back"
    ):
        train(config, resume="run")
    if setting in plugins.REPLAYED:
        with pytest.raises(Changed, match=f"source of {setting}"):
            replay("run", output="again", observer=Observer())
    file.write_text(before)
    assert len(train(config, resume="run").steps) == 8


@pytest.mark.parametrize("setting", plugins.REPLAYED)
def test_a_trajectory_alone_has_no_code_run(
    setting: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(MeZOConfig.build(**settings_for(setting)), output="run")
    nobody_has_named_any(monkeypatch)
    file = place / FILES[setting]
    file.write_text("from pathlib import Path\nPath('mark').touch()\n")
    assert main(["replay", "run", "--output", "again"]) == 2
    assert f"give --plugin {FILES[setting]}:" in capsys.readouterr().err
    assert main(["trajectory", "show", "run"]) == 0
    assert main(["trajectory", "verify", "run", "--weights"]) == 2
    assert main(["train", "--config", "run/config.yaml", "--output", "new"]) == 2
    assert main(["train", "--resume", "run"]) == 2
    assert not (place / "mark").exists()


def test_the_command_line_takes_it_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "estimator.py:OneSidedTwice"
    common = ["--model", "base", "--task", "sst2", "--data", "rows.jsonl", "--batch", "3"]
    assert main(["train", *common, "--steps", "3", "--estimator", name, "--output", "run"]) == 0
    for command in (
        ["replay", "run", "--output", "again"],
        ["trajectory", "verify", "run", "--weights"],
        ["train", "--resume", "run", "--steps", "4"],
        ["train", "--config", "run/config.yaml", "--output", "new"],
    ):
        nobody_has_named_any(monkeypatch)
        assert main(command) == 2
        assert main([*command, "--plugin", name]) == 0


def test_a_fork_needs_the_plugin_of_its_first_steps_as_it_was(place: Path) -> None:
    train(MeZOConfig.build(**settings_for("estimator")), output="run", observer=StopsAfter(3))
    other = MeZOConfig.build(**{**settings_for("estimator"), "estimator": "two-point"})
    forked = train(other, resume="run", fork="fork")
    again = replay("fork", output="again", observer=Observer())
    assert (again / "model.safetensors").read_bytes() == (place / "fork/model/model.safetensors").read_bytes()
    assert len(forked.steps) == 8
    file = place / "estimator.py"
    file.write_text(file.read_text() + "\n# another thought\n")
    with pytest.raises(Changed, match="source of estimator"):
        replay("fork", output="third", observer=Observer())
    with pytest.raises(Changed, match="source of estimator"):
        train(other, resume="run", fork="fork2")


def test_eval_and_tasks_take_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["eval", "--model", "base", "--data", "rows.labelled", "--data-format", "data_format.py:lines"]
    assert main([*common, "--task", "task.py:Letters", "--metrics", "metric.py:ERROR_RATE,accuracy"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("error-rate") < shown.index("accuracy")
    assert main(["tasks", "show", "task.py:Letters", "--data", "rows.jsonl", "--rows", "1"]) == 0
    assert "Letter:" in capsys.readouterr().out
