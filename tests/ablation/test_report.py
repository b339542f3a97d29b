"""The reports of a study: their numbers against results.jsonl, their text against injection."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy import stats
from tests.ablation.made_study import NASTY, made, run_line, write_lines

from mezo.ablation.comparison.comparisons import compare
from mezo.ablation.comparison.quantities import quantity
from mezo.ablation.report.document import document
from mezo.ablation.report.report import html, markdown, read_lines, write_report
from mezo.errors import MezoError
from mezo.util.escaping import markdown_text

pytest.importorskip("jinja2")

METRICS = ("accuracy", "loss", "peak_memory_gb", "train_seconds", "forward_passes")
Table = list[list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = made(tmp_path_factory.mktemp("study"))
    write_report(path)
    return path


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study in the words of an attacker; without figures, which the tests in a browser draw."""
    path = made(tmp_path_factory.mktemp("nasty"), name=NASTY, nasty=True)
    said = document(compare(read_lines(path)), path)
    (path / "report.html").write_text(html(said))
    pictures = {name: f"figures/{name}.png" for name in ("differences", "study-1", "study-2")}
    (path / "report.md").write_text(markdown(said, pictures))
    return path


# -------------------------------------------------------------------------------- reading them back


def markdown_tables(text: str) -> dict[tuple[str, str], Table]:
    """(study's heading, metric's heading) -> rows of cells as text."""
    tables: dict[tuple[str, str], Table] = {}
    study, metric, kind = "", "", ""
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        assert token.type not in ("html_block",), token.content
        kind = token.tag if token.type == "heading_open" else kind
        if token.type == "inline":
            cell = "".join(c.content for c in token.children or () if c.type in ("text", "code_inline"))
            assert not any(c.type == "html_inline" for c in token.children or ())
            if kind == "h2":
                study, metric = cell, ""
            elif kind == "h3":
                metric = cell
            elif tables.get((study, metric)):
                tables[study, metric][-1].append(cell)
            kind = ""
        elif token.type == "table_open":
            tables[study, metric] = []
        elif token.type == "tr_open":
            tables[study, metric].append([])
    return tables


class Page(HTMLParser):
    """Elements of an HTML report: how many of each, the rows of tables under their study's heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[tuple[str, str], Table] = {}
        self.data = ""
        self._study = self._metric = ""
        self._inside: list[str] = []
        self._row: list[str] = []
        self._metric_row = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag not in ("meta", "link", "br"):
            self._inside.append("data" if values.get("id") == "data" else tag)
        if tag == "h2":
            self._study = ""
        if tag == "tr":
            self._row, self._metric_row = [], values.get("class") == "metric"
        if tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside.pop()
        if tag == "tr" and self._metric_row:
            self._metric = self._row[0]
        elif tag == "tr":
            self.tables.setdefault((self._study, self._metric), []).append(self._row)
        if tag == "table":
            self._metric = ""

    def handle_data(self, data: str) -> None:
        where = self._inside[-1] if self._inside else ""
        if where == "h2":
            self._study += data
        elif where in ("td", "th"):
            self._row[-1] += data
        elif where == "data":
            self.data += data


def number(cell: str) -> float:
    return float(cell.replace("−", "-").replace(",", ""))


def recomputed(lines: list[dict[str, Any]], study: str, variant: str, metric: str) -> dict[str, float]:
    """Mean, deviation, difference, interval and p of a variant, by NumPy and SciPy from the records alone."""
    runs = [line for line in lines if line["kind"] == "run" and line["status"] == "ok"]
    base = {r["seed"]: r["metrics"][metric] for r in runs if r["variant"] == "baseline"}
    mine = {r["seed"]: r["metrics"][metric] for r in runs if (r["study"], r["variant"]) == (study, variant)}
    seeds = sorted(base.keys() & mine.keys())
    a, b = np.array([mine[s] for s in seeds]), np.array([base[s] for s in seeds])
    found = {"mean": float(np.mean(list(mine.values()))), "difference": float((a - b).mean())}
    found["deviation"] = float(np.std(list(mine.values()), ddof=1))
    if np.ptp(a - b) > 1e-12:
        test = stats.ttest_rel(a, b)
        found["low"], found["high"] = map(float, test.confidence_interval(0.95))
        found["p"] = float(test.pvalue)
    return found


VARIANTS = (("Perturbation scale", "1e-1"), ("Perturbation scale", "1e-4"), ("Directions", "4 directions"))


def adjusted(lines: list[dict[str, Any]], metric: str) -> dict[tuple[str, str], float]:
    """Holm's p by its definition: of the j-th smallest, the largest of (m - i) p_(i) over i <= j."""
    p = {v: found["p"] for v in VARIANTS if "p" in (found := recomputed(lines, *v, metric))}
    order = sorted(p, key=lambda v: p[v])
    return {
        v: min(1.0, max((len(order) - i) * p[w] for i, w in enumerate(order[: n + 1])))
        for n, v in enumerate(order)
    }


@pytest.mark.parametrize("kind", ["report.md", "report.html"])
@pytest.mark.parametrize("metric", METRICS)
def test_every_number_is_that_of_the_records(folder: Path, kind: str, metric: str) -> None:
    text = (folder / kind).read_text()
    tables = markdown_tables(text) if kind == "report.md" else Page(text).tables
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    shown, holm = quantity(metric), adjusted(lines, metric)
    # shown to that many digits: half a unit of the last one
    tolerance = 0.5001 * 10.0 ** -(shown.digits or 0)
    for n, (study, variant) in enumerate(VARIANTS):
        rows = {row[0]: row for row in tables[f"{1 + n // 2}. {study}", shown.heading]}
        name, seeds, mean, deviation, difference, interval, p = rows[variant]
        truth = recomputed(lines, study, variant, metric)
        assert (name, seeds) == (variant, "3")
        for cell, key in ((mean, "mean"), (deviation, "deviation"), (difference, "difference")):
            assert number(cell) == pytest.approx(shown.factor * truth[key], abs=tolerance)
        if "p" not in truth:
            assert (interval, p) == ("none", "")
            continue
        ends = [number(end) for end in interval.split(" to ")]
        assert ends == pytest.approx(
            [shown.factor * truth["low"], shown.factor * truth["high"]], abs=tolerance
        )
        if p.startswith("<"):
            assert holm[study, variant] < 0.001
        else:
            assert float(p) == pytest.approx(holm[study, variant], rel=0.06)  # two digits
        assert rows["baseline"][4:] == ["", "", ""]


def test_the_charts_are_those_numbers(folder: Path) -> None:
    said = document(compare(read_lines(folder)), folder)
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert said["differences"] is not None
    (forest,) = said["differences"].series
    assert forest.x_ends is not None
    for n, variant in enumerate(VARIANTS):
        truth = recomputed(lines, *variant, "accuracy")
        assert forest.x[n] == pytest.approx(100 * truth["difference"], rel=1e-9)
        ends = tuple(each[n] for each in forest.x_ends)
        assert ends == pytest.approx((100 * truth["low"], 100 * truth["high"]), rel=1e-9)
    panels = {panel.key: panel for panel in said["sections"][0]["panels"]}
    assert list(panels) == ["score", "loss", "memory", "time"]
    for series in panels["memory"].series[1:]:
        truth = {m: recomputed(lines, "Perturbation scale", series.name, m) for m in METRICS}
        assert series.x == pytest.approx([truth["peak_memory_gb"]["mean"]], rel=1e-9)
        assert series.y == pytest.approx([100 * truth["accuracy"]["mean"]], rel=1e-9)
    curve = next(series for series in panels["score"].series if series.name == "1e-1")
    assert curve.x == [0, 20, 40]
    truth = recomputed(lines, "Perturbation scale", "1e-1", "accuracy")
    assert curve.y[-1] == pytest.approx(100 * truth["mean"], rel=1e-9)


def test_every_chart_is_drawn_in_the_page_with_its_numbers(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    charts = re.findall(r'data-chart="([^"]*)"><svg (.*?)</svg>', text, re.DOTALL)
    assert [name for name, _ in charts] == [
        "differences",
        *(f"study-{n}-{k}" for n in (1, 2) for k in ("score", "loss", "memory", "time")),
    ]
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for variant in VARIANTS:
        truth = recomputed(lines, *variant, "accuracy")
        assert f"<title>{': '.join(variant)}: {100 * truth['difference']:.4g}</title>" in charts[0][1]
    for _, svg in charts:
        assert "var(--ink)" in svg
        assert "<style" not in svg
        found = re.findall(r"clip-path=\"url\(#(\w+)\)|href=\"#(\w+)", svg)
        assert all(f'id="{clip or mark}"' in svg for clip, mark in found)
    colors = {color for _, svg in charts for color in re.findall(r": (#[0-9a-f]{6})", svg)}
    assert colors == set()  # they would not follow the page into the dark


# -------------------------------------------------------------------------------- text from plans


def test_no_text_of_a_plan_is_markup_in_html(folder: Path, nasty: Path) -> None:
    plain, page = (Page((path / "report.html").read_text()) for path in (folder, nasty))
    drawn = ("g", "path", "text", "use", "defs", "clippath", "rect", "title", "svg")
    for name in drawn[:6]:  # longer names leave a chart less room, and so fewer ticks
        page.counts.pop(name)
        plain.counts.pop(name)
    assert page.counts == plain.counts  # the same elements, whatever a plan says
    assert "script" not in page.counts
    cells = [cell for table in page.tables.values() for row in table for cell in row]
    assert NASTY in cells
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_no_text_of_a_plan_is_markup_in_markdown(folder: Path, nasty: Path) -> None:
    kinds = [
        [token.type for token in MarkdownIt().enable("table").parse((path / "report.md").read_text())]
        for path in (folder, nasty)
    ]
    assert kinds[0] == kinds[1]
    tables = markdown_tables((nasty / "report.md").read_text())
    flat = " ".join(NASTY.split())
    assert flat in [row[0] for row in tables["2. Directions", "Accuracy (%)"]]
    assert f"1. {flat}" in {study for study, _ in tables}


@pytest.mark.parametrize(
    "text", ["- x", "1. x", "---", "+ x", "===", "> q", "# h", "a | b", "*b*", "&amp;", "a_b_c", "x~~y~~"]
)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    tokens = MarkdownIt().enable("table").enable("strikethrough").parse(f"{markdown_text(text)}\n")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in tokens[1].children or ()} <= {"text"}
    assert "".join(child.content for child in tokens[1].children or ()) == text


def test_the_page_loads_nothing(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    loads = {value for _, name, value in page.attributes if name in ("src", "href", "action", "data")}
    assert loads == {"data:,"}


# -------------------------------------------------------------------------------- what may be missing


def test_what_failed_and_what_was_not_bound_is_listed(folder: Path) -> None:
    tables = markdown_tables((folder / "report.md").read_text())
    failed = tables["Failed, stopped or without a number", ""]
    assert failed[1:] == [["Directions", "8 directions", "seed 0 failed: out of memory"]]
    unbound = tables["Not run: no setting stands for it", ""]
    assert unbound[1:] == [["Directions", "a better model", "no such setting (nearest: model)"]]
    text = (folder / "report.md").read_text()
    assert "mezo ablate plan.yaml" in text
    assert "mezo 0.0, torch 2.0" in text


def test_run_folders_that_are_gone_cost_only_the_curves(tmp_path: Path) -> None:
    lines = [run_line(None, "baseline", s, {"loss": 1.0 + s}, run=f"runs/b{s}") for s in range(2)]
    lines += [run_line("S", "v", s, {"loss": 1.5 + 1.1 * s}, run=f"runs/v{s}") for s in range(2)]
    written = write_report(write_lines(tmp_path, lines))
    assert all(path.is_file() and path.stat().st_size for path in written)
    assert [path.name for path in written] == [
        "report.html",
        "report.md",
        "differences.png",
        "differences.svg",
    ]
    assert markdown_tables((tmp_path / "report.md").read_text())["1. S", "Validation loss"][1][2] == "1.5000"


def test_the_same_results_give_the_same_files(folder: Path) -> None:
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if "report" in path.name or path.suffix in (".png", ".svg")
    }
    assert {path: path.read_bytes() for path in write_report(folder)} == before
    assert not [path for path in folder.rglob(".*") if path.is_file()]  # no temporary file stays


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such results"),
        ("", "no finished run to report"),
        ("nonsense\n", r"results\.jsonl:1: expected a JSON object, found 'nonsense'"),
        ('{"kind": "meta"}\n[1]\n', r"results\.jsonl:2: expected a JSON object"),
    ],
)
def test_what_is_no_study(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(MezoError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    write_lines(tmp_path, [run_line(None, "baseline", 0, {"loss": 1.0})])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"kind": "run", "stu')
    assert len(read_lines(tmp_path)) == 1


def test_only_failures_say_why(tmp_path: Path) -> None:
    write_lines(tmp_path, [run_line("S", "v", 0, {}, status="failed", error="out of memory")])
    with pytest.raises(MezoError, match="no finished run to report; the first error: out of memory"):
        write_report(tmp_path)


def test_quantities_show_what_is_not_finite_as_nothing() -> None:
    assert quantity("accuracy").value(math.nan) == "–"
    assert quantity("accuracy").value(-0.0312, sign=True) == "−3.12"
    assert quantity("my_own").heading == "My own"
