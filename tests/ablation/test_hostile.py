"""Texts of a plan that mean something to a terminal, a page or a drawing library are shown, and do nothing."""

import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from tests.ablation.made_study import made
from tests.cli import toy
from tests.test_names import HOSTILE

from mezo.ablation.report.report import write_report
from mezo.cli import main
from mezo.util.parsing import printable

pytest.importorskip("jinja2")

MORE = (
    "$\\frac{a$",
    "a$",
    "_^{",
    "\x00",
    "\u2028x",
    "\x85",
    "\ud800 x",
    "<!--",
    "]]>",
    "javascript:alert(1)",
)
# of those that a drawing library reads, a few: each study takes seconds to draw
DRAWN = ("\x1b[31mred", "\udcff", "$\\frac{a$")


@pytest.fixture(autouse=True)
def _plain_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.node.name:
        monkeypatch.setattr("mezo.ablation.report.report.write_figure", lambda panels, stem: [])
        monkeypatch.setattr("mezo.ablation.report.report.inline_svg", lambda panel, name: "")


def texts(path: Path) -> list[str]:
    return [(path / name).read_text() for name in ("report.html", "report.md")]


@pytest.mark.parametrize("name", [*HOSTILE, *MORE], ids=ascii)
def test_a_report_shows_names_and_does_nothing_else(name: str, tmp_path: Path) -> None:
    path = made(tmp_path / "study", name=name)
    write_report(path)
    for text in texts(path):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert " ".join(printable(name).split()) in markdown_text(path)


def markdown_text(path: Path) -> str:
    """All its text, as a reader of Markdown sees it."""
    tokens = MarkdownIt().enable("table").parse((path / "report.md").read_text())
    return " ".join("".join(c.content for c in t.children or ()) for t in tokens if t.type == "inline")


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN, ids=ascii)
def test_a_hostile_name_is_drawn(name: str, tmp_path: Path) -> None:
    path = made(tmp_path / "study", name=name)
    assert all(written.stat().st_size for written in write_report(path))
    for text in texts(path):
        assert all(c.isprintable() or c == "\n" for c in text)


def test_a_report_has_no_secret_of_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "study")
    lines = (path / "results.jsonl").read_text().replace("out of memory", "no access with sk-1234567890")
    (path / "results.jsonl").write_text(lines)
    monkeypatch.setenv("FAKE_API_KEY", "sk-1234567890")
    write_report(path)
    assert "no access with ***" in (path / "report.html").read_text()
    for file in ("report.html", "report.md"):
        assert "sk-1234567890" not in (path / file).read_text()


def test_the_commands_print_names_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is bound, what is not and why; and two plans side by side."""
    studies = [
        {
            "name": f"{n} {name}",
            "ablated_part": part,
            "action": "REPLACE",
            "replacement": [1e-2, f"x{name}"],
            "metrics": ["accuracy", f"x{name}"],
        }
        for n, name in enumerate([*HOSTILE, *MORE])
        for part in ("Perturbation scale (epsilon)", f"x{name}")
    ]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(studies))
    model, data = toy.model(tmp_path / "model"), toy.reviews(tmp_path / "data")
    capsys.readouterr()  # of the library that wrote the model
    base = ["--model", str(model), "--data", str(data), "--steps", "4", "--batch-size", "2"]
    out = ["--output", str(tmp_path / "o"), "--dry-run", "--no-timing"]
    assert main(["ablate", str(plan), *base, *out]) == 0
    assert main(["plan-eval", str(plan), "--gold", str(plan)]) == 0
    said = capsys.readouterr()
    assert "\\x1b[31mred" in said.out
    for text in (said.out, said.err):
        assert all(c.isprintable() or c == "\n" for c in text)
