"""`mezo baseline` and `mezo eval --shots` as a person types them."""

import json
from pathlib import Path

import pytest
from tests.cli import toy

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.runs.folder import RunFolder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


@pytest.mark.parametrize("name", [[], ["linear-probe"], ["finetune"], ["compare"]])
def test_they_have_help(name: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", *name, "--help"]) == 0
    assert "Usage: mezo baseline" in capsys.readouterr().out


def test_all_of_them_side_by_side(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", model, "--data", data]
    files = []
    for shots in (0, 2):
        assert main(["eval", *common, "--shots", str(shots), "--json"]) == 0
        files.append(tmp_path / f"shots{shots}.json")
        files[-1].write_text(capsys.readouterr().out)
    steps = ["--batch-size", "4", "--steps", "3"]
    assert main(["baseline", "linear-probe", *common, "--output", str(tmp_path / "probe")]) == 0
    assert main(["baseline", "finetune", *common, *steps, "--output", str(tmp_path / "adamw")]) == 0
    assert main(["train", *common, *steps, "--start", "model", "--output", str(tmp_path / "mezo")]) == 0
    places = [*map(str, files), *(str(tmp_path / name) for name in ("probe", "adamw", "mezo"))]
    capsys.readouterr()
    assert main(["baseline", "compare", *places, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    methods = ["zero-shot", "2-shot", "linear probe", "AdamW full", "MeZO full"]
    assert [r["method"] for r in runs] == methods
    assert [r["steps"] for r in runs] == [0, 0, 0, 3, 3]
    assert runs[0]["end"] == runs[3]["start"] == runs[4]["start"]
    assert {r["metric"] for r in runs} == {"accuracy"}
    assert main(["baseline", "compare", *places]) == 0
    shown = capsys.readouterr().out
    assert all(method in shown for method in methods)
    assert main(["baseline", "compare", *places, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| run | task | method |")


def test_a_probe_prints_what_it_found(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "linear-probe", "--model", model, "--data", data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "linear probe"
    assert found["examples"] == found["train_examples"] == 8
    assert main(["baseline", "linear-probe", "--model", model, "--data", data]) == 0
    assert f"accuracy  {100 * found['accuracy']:.1f} %" in capsys.readouterr().out


@pytest.mark.slow
def test_the_learning_rate_of_a_run_of_mezo_is_not_taken_over(model: str, data: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    settings = MeZOConfig.build(model=model, data=data, learning_rate=1e-7, num_steps=2, batch_size=2)
    file.write_text(settings.to_yaml())
    command = ["baseline", "finetune", "--config", str(file), "--optimizer", "sgd"]
    assert main([*command, "--output", str(tmp_path / "a")]) == 0
    saved = MeZOConfig.load(RunFolder(tmp_path / "a").config)
    assert (saved.learning_rate, saved.optimizer, saved.num_steps) == (1e-5, "sgd", 2)
    assert main([*command, "--learning-rate", "0.5", "--output", str(tmp_path / "b")]) == 0
    assert MeZOConfig.load(RunFolder(tmp_path / "b").config).learning_rate == 0.5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["finetune", "--optimizer", "adam"], "unknown optimizer 'adam'; did you mean 'adamw'"),
        (["finetune", "--objective", "accuracy"], "unknown differentiable objective 'accuracy'"),
        (["linear-probe", "--task", "prompt-completion"], "linear probing chooses between candidates"),
        (["compare", "nowhere"], "nowhere: no such run folder"),
    ],
)
def test_a_mistake_is_one_line(
    model: str, data: str, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    more = [] if command[0] == "compare" else ["--model", model, "--data", data]
    assert main(["baseline", *command, *more]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.slow
def test_a_run_is_not_replaced_unasked(model: str, data: str, tmp_path: Path) -> None:
    command = ["baseline", "linear-probe", "--model", model, "--data", data, "--output", str(tmp_path / "p")]
    assert main(command) == 0
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
