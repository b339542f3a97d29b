"""`mezo plan-eval`, as a person meets it."""

import json
from pathlib import Path

import pytest
from tests.ablation.plans import FOLDER

from mezo.cli import main

PLAN, GOLD = str(FOLDER / "memory.html"), str(FOLDER / "theory.jsonl")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-eval", PLAN, "--gold", GOLD]) == 0
    out = " ".join(capsys.readouterr().out.split())
    # "Store z explicitly" is one of the four replacements of the seed's resampling
    assert "precision 0.333 (1 of 3) recall 0.143 (1 of 7) F1 0.200 nDCG" in out


def test_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-eval", GOLD, "--gold", GOLD, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["judge"], found["f1"], found["ndcg"], found["gold"]) == ("rules", 1, 1, 7)
    assert all(pair["study"] == pair["gold"] for pair in found["pairs"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.md", "--gold", GOLD], "none.md: cannot read the plan"),
        ([PLAN, "--gold", GOLD, "--judge", "lm"], "--judge lm needs --model"),
        ([PLAN, "--gold", GOLD, "--model", "x"], "--judge rules asks no model"),
        ([PLAN, "--gold", GOLD, "--judge", "me"], "unknown judge 'me'"),
        ([PLAN], "--gold"),
    ],
)
def test_mistakes(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_markup_in_a_plan_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"name": "[bold]x[/bold]", "ablated_part": "[link=a]epsilon", "action": "REMOVE"}
    (tmp_path / "p.json").write_text(json.dumps([study]))
    assert main(["plan-eval", str(tmp_path / "p.json"), "--gold", str(tmp_path / "p.json")]) == 0
    assert "[bold]x[/bold]: REMOVE" in " ".join(capsys.readouterr().out.split())
