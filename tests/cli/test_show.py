"""`mezo eval --show`: what was asked, expected and answered, as text."""

import json
from pathlib import Path

import pytest
from tests.cli import toy

from mezo.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.model(tmp_path_factory.mktemp("models") / "toy")


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["eval", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_what_was_chosen(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy.reviews(tmp_path / "reviews")
    out = said(capsys, "--model", model, "--task", "sst2", "--data", data, "--show", "2")
    assert out.count("\n--- ") == 2
    found = json.loads(
        said(capsys, "--model", model, "--task", "sst2", "--data", data, "--show", "100", "--json")
    )
    shown = found["shown"]
    assert len(shown) == found["examples"] == 8
    assert all(set(e) == {"prompt", "expected", "chosen"} for e in shown)
    assert {e["chosen"] for e in shown} <= {" great", " terrible"}
    assert found["accuracy"] == sum(e["chosen"] in e["expected"] for e in shown) / 8
    assert f"expected  {' | '.join(map(repr, shown[0]['expected']))}" in out
    plain = json.loads(said(capsys, "--model", model, "--task", "sst2", "--data", data, "--json"))
    assert "shown" not in plain


def test_what_was_written_is_no_markup(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "[bold]x[/bold] \x1b[31m:smile:", "completion": " great [/]"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = said(
        capsys, "--model", model, "--data", tmp_path / "rows.jsonl", "--show", "1", "--max-new-tokens", "4"
    )
    assert "[bold]x[/bold] \\x1b[31m:smile:" in out
    assert "expected  'great [/]'" in out
    assert "written   " in out
    assert "\x1b" not in out


def test_free_text_is_evaluated_without_a_look(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "one", "completion": " two"}) + "\n")
    assert "loss" in said(
        capsys, "--model", model, "--data", tmp_path / "rows.jsonl", "--max-new-tokens", "4"
    )
