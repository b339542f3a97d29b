"""`mezo tune` as a person types it."""

import json
from pathlib import Path

import pytest
from tests.cli import toy

from mezo.cli import main
from mezo.config import MeZOConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


def arguments(model: str, data: str, output: Path, *more: str) -> list[str]:
    return [
        *("tune", "--model", model, "--data", data, "--batch-size", "4", "--steps", "5"),
        *("--learning-rates", "1e-3,1e-2,1e9", "--epsilons", "1e-3", "--trial-steps", "16"),
        *("--output", str(output), *more),
    ]


def test_it_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("--learning-rates", "--epsilons", "--trial-steps", "--minutes", "--json"):
        assert flag in shown
    assert "--learning-rate " not in shown


def test_a_table_a_choice_and_a_config_to_train_with(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(model, data, tmp_path / "s")) == 0
    out, err = capsys.readouterr()
    assert "3 settings; trials: 3 of 8 steps, 2 of 16 steps; 56 steps, about" in err
    assert "8 steps" in out
    assert "0.6931 !" in out  # of 1e9: this model answers everything alike by now, with ln 2 to lose
    assert "steps too large for their slopes" in out
    best = MeZOConfig.load(tmp_path / "s" / "best.yaml")
    assert f"chosen    learning rate {best.learning_rate:g}, epsilon 0.001" in out
    assert best.num_steps == 5
    train = ["train", "--config", str(tmp_path / "s" / "best.yaml"), "--output", str(tmp_path / "run")]
    assert main(train) == 0
    written = MeZOConfig.load(tmp_path / "run" / "config.yaml")
    assert written.matmul != "auto"  # a run says what multiplied its matrices
    assert written.model_copy(update={"matmul": "auto", "task": best.task}) == best


@pytest.mark.slow
def test_json_is_one_object_and_a_second_time_the_same(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        assert main(arguments(model, data, tmp_path / "s", "--json")) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    found, again = outputs
    assert again == found  # nothing was run twice: the seconds are the same, too
    assert found["rungs"] == [8, 16]
    assert [t["steps"] for t in found["trials"]] == [8, 8, 8, 16, 16]
    assert found["trials"][2]["too_large"]
    last = [t for t in found["trials"] if t["steps"] == 16]
    assert found["learning_rate"] == min(last, key=lambda t: t["loss"])["learning_rate"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rates", "1e-3;1e-2"], "--learning-rates: expected numbers with commas between them"),
        (["--trial-steps", "4"], "3 settings are halved 1 times"),
        (["--minutes", "1"], "steps and minutes exclude each other"),
        (["--task", "sst22"], "unknown task 'sst22'; did you mean 'sst2'"),
    ],
)
def test_a_mistake_is_one_line(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(model, data, tmp_path / "s", *more)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "s").exists()
