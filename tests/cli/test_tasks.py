"""`mezo tasks`: every task listed, and its prompts shown as they are."""

import json
from pathlib import Path

import pytest
from tests.cli import toy

from mezo.cli import main
from mezo.tasks import TASKS


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["tasks", *arguments]) == 0
    return capsys.readouterr().out


def test_the_list_says_what_a_row_holds_and_how_it_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert "cb\n  fields   premise, hypothesis, label\n  answers  Yes | No | Maybe\n" in text
    assert "  judged   accuracy, macro-f1\n  models   causal, masked\n  data     aps/super_glue cb\n" in text


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_shown_without_data(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "show", name)
    assert text.count("--- made up[") == 2
    stars = [line for line in text.splitlines() if line.startswith("* ")]
    assert len(stars) == (
        3 if name in ("record", "chat") else 2
    )  # two names in one of ReCoRD's; three turns in all


def test_rows_of_ones_own_with_the_right_answer_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"premise": "[bold]A[/bold] :smile: B", "hypothesis": "B", "label": 1}))
    text = printed(capsys, "show", "rte", "--data", str(path), "-n", "5")
    assert text == (
        f"--- {path}:1\n[bold]A[/bold] :smile: B\n"
        "Does this mean that \"B\" is true? Yes or No?\n\n  'Yes'\n* 'No'\n"
    )
    masked = printed(capsys, "show", "rte", "--data", str(path), "--masked")
    assert masked.splitlines()[1:] == ["[bold]A[/bold] :smile: B? [MASK], b", "  ' Yes'", "* ' No'"]


def test_other_words_and_another_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "show", "sst2", "--label-words", "Bad, Good", "--template", r"{sentence}\nSo:")
    assert "\nSo:\n  ' Bad'\n* ' Good'\n" in text


def test_what_a_model_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy.model(tmp_path / "model")
    text = printed(capsys, "show", "squad", "-m", str(model), "-n", "1", "--max-length", "120")
    place, *lines = text.replace("|", "").splitlines()
    assert place == "--- made up[0], 120 tokens, 6 learned (in brackets)"
    assert lines[0] == "<s>Title: Port_Meren↵"
    assert lines[-2:] == ["Answer:[ 1742↵", "]"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rtt"], "unknown task 'rtt'; did you mean 'rte'"),
        (["wsc", "--masked"], "task 'wsc' continues its prompts"),
        (["rte", "--data", "./nowhere"], "./nowhere: no such file or folder"),
        (["nowhere.yaml"], "nowhere.yaml: not a readable task file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
