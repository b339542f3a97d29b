"""Plans, studies, runs and comparisons of hostile text as pages: no element and no attribute comes from the text."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from tests.ablation.made_study import made
from tests.runs.test_card import card

from mezo.ablation.formats.files import parse, to_markdown
from mezo.ablation.plans.plan import Plan
from mezo.ablation.report.report import write_report
from mezo.baselines.compare import MethodLine, markdown

pytest.importorskip("jinja2")

MARKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<img src=https://example.org/x.png>",
    "<svg onload=alert(3)></svg>",
    "<style>*{display:none}</style>",
    "[click](javascript:alert(4))",
    "![x](data:text/html,x)",
    "[x][y]",
    "[y]: javascript:alert(5)",
    "<javascript:alert(6)>",
    "<https://example.org/track>",
    "<a href='javascript:alert(7)'>x</a>",
    "</script><script>alert(8)</script>",
    "--><b onclick=alert(9)>",
    "<!-- ",
    "]]></style></title></pre></div>",
    '" onmouseover="alert(10)" x="',
    "`<i>` `",
    "a | b",
    "&lt;u&gt; &#60;u&#62;",
    "\u202eabc \u2066x",
    "# h",
    "- <p class=x>",
)
ALL = " ".join(MARKS)
ELEMENTS = {"style", "div", "h1", "h2", "h3", "p", "ul", "li", "strong", "code"}


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.shown += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def rendered(text: str) -> Elements:
    """A page of Markdown as the most generous reader shows it: HTML, tables, links of every kind."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    reader.validateLink = lambda url: True  # type: ignore[method-assign]
    return Elements(reader.render(text))


def plan(text: str) -> Plan:
    first = {
        "name": text,
        "ablated_part": text,
        "action": "REPLACE",
        "replacement": [text, {text: text}],
        "metrics": (text,),
        "why": text,
        f"x {text}": [text],
    }
    second = {"name": "a", "ablated_part": "b", "action": "ADD", "replacement": {text: text}}
    return Plan.build(
        **{
            "title": text,
            "reasoning": f"Because {text}.\n\n{text}",
            "seen_in": text,
            text: text,
            "studies": [first, second],
        }
    )


def own(elements: Elements) -> Counter[Any]:
    """Elements that carry attributes, and those that only a page itself has: a reasoning may have headings."""
    return Counter(each for each in elements.found if each[1] or each[0] in ("style", "div", "h3", "script"))


@pytest.mark.parametrize("text", [*MARKS, ALL], ids=ascii)
def test_a_plan(text: str) -> None:
    written = to_markdown(plan(text))
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", written)
    assert not re.search(r"(?<!\\)\]\(javascript:", written)
    found = rendered(written)
    assert own(found) == own(rendered(to_markdown(plan("x"))))
    assert {tag for tag, _ in found.found} <= ELEMENTS


@pytest.mark.parametrize("text", [*MARKS, ALL], ids=ascii)
@pytest.mark.parametrize("ending", [".md", ".html"])
def test_a_page_of_hostile_text_is_read_as_text(text: str, ending: str) -> None:
    page = f"<div>\n\n### Scale\n- **Ablated Part**: p\n- **Action**: ADD\n- **Why**: {text}\n\n</div>"
    if ending == ".html":
        page = f"<h3>Scale</h3><ul><li><b>Ablated Part</b>: p</li><li><b>Action</b>: ADD</li><li>{text}</li></ul>"
    (study,) = parse(page, ending).studies
    assert (study.name, study.ablated_part, study.action, study.replacement) == ("Scale", "p", "ADD", None)


def test_the_check_of_plans_sees_markup() -> None:
    text = to_markdown(plan("x"))
    for mark in (MARKS[0], MARKS[1], MARKS[3], MARKS[5], MARKS[11]):
        assert own(rendered(text.replace("- **Why**: x", f"- **Why**: {mark}"))) != own(rendered(text))


def hostile_study(folder: Path, text: str = ALL) -> Path:
    """A study's folder in which all that other people say is hostile."""
    path = made(folder, name="Scale")

    def hostile(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: hostile(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [hostile(each, name) for each in value]
        foreign = (
            "title",
            "budget",
            "command",
            "study",
            "name",
            "ablated_part",
            "variant",
            "error",
            "torch",
            "model",
        )
        if isinstance(value, str) and (name in foreign or (name == "metrics" and value == "f1")):
            return value if value == "baseline" else f"{value} {text}"
        return value

    lines = [hostile(json.loads(line)) for line in (path / "results.jsonl").read_text().splitlines()]
    (path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezo.ablation.report.report.write_figure", lambda panels, stem: [])
    monkeypatch.setattr("mezo.ablation.report.report.inline_svg", lambda panel, name: "")
    found = []
    for path in (made(tmp_path / "plain", name="Scale"), hostile_study(tmp_path / "hostile")):
        write_report(path)
        page = Elements((path / "report.html").read_text())
        names = [(tag, tuple(name for name, _ in attributes)) for tag, attributes in page.found]
        text = rendered((path / "report.md").read_text())
        found.append((Counter(names), Counter(text.found)))
    assert found[0] == found[1]
    assert "alert(3)" in text.shown
    policy = next(
        dict(a)["content"]
        for t, a in page.found
        if t == "meta" and ("http-equiv", "Content-Security-Policy") in a
    )
    assert policy is not None
    assert not re.search(r"https?:|\*|script-src|default-src (?!'none')", policy)


def test_a_card_and_a_comparison(tmp_path: Path) -> None:
    def of_card(name: str, folder: str) -> Counter[Any]:
        text = card(tmp_path / folder, model=name, task=name, data=name).split("---\n", 2)[2]
        return Counter(rendered(text).found)

    def of_comparison(name: str) -> Counter[Any]:
        line = MethodLine(name, name, name, name, None, 0.5, 0.5, 1, 1.0, None)
        return Counter(rendered(markdown([line])).found)

    assert of_card(ALL, "hostile") == of_card("x", "plain")
    assert of_comparison(ALL) == of_comparison("x")
