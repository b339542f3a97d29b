"""The HTML report in a real browser, without a screen: drawn, silent, offline, and no wider than a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.ablation.made_study import NASTY, made
from tests.ablation.test_hostile_pages import MARKS, hostile_study

from mezo.ablation.report.report import write_report

pytestmark = pytest.mark.slow
pytest.importorskip("jinja2")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DARK = "--blink-settings=preferredColorScheme=0"

# Runs before everything else in the page, its policy included; an alert is what an injected script would do.
WATCH = """<script>
window.errors = [];
window.addEventListener("error", (e) => errors.push(String(e.message)));
window.alert = (text) => errors.push("alert: " + text);
document.addEventListener("securitypolicyviolation", (e) => errors.push("refused: " + e.effectiveDirective));
for (const name of ["error", "warn"]) console[name] = (...words) => errors.push(name + ": " + words.join(" "));
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement, charts = [...document.querySelectorAll("[data-chart]")];
  (parent === window ? window : parent).postMessage(JSON.stringify({
    errors,
    charts: charts.length,
    drawn: charts.filter((c) => [...c.querySelectorAll("svg path")].filter((p) => p.getBoundingClientRect().width).length > 3).length,
    widest: Math.max(...charts.map((c) => c.getBoundingClientRect().width)),
    width: root.clientWidth,
    scroll: root.scrollWidth,
    loaded: performance.getEntriesByType("resource").map((r) => r.name),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    axis: getComputedStyle(document.querySelector("svg text")).fill,
  }), "*");
}, 500));
</script>"""
# A window has a least width of its own, a frame has not: the phone is a frame.
FRAME = """<!doctype html><body style="margin:0"><pre id="told"></pre><iframe id="page"></iframe><script>
addEventListener("message", (e) => { document.getElementById("told").textContent = e.data; });
const frame = document.getElementById("page");
frame.style = "border:0;width:%dpx;height:4000px";
frame.src = "watched.html";
</script>"""


def seen(report: Path, folder: Path, width: int, *options: str) -> dict[str, Any]:
    """What the page says of itself when it is shown `width` pixels wide."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    page = report.read_text().replace("<head>", "<head>" + WATCH, 1)
    (folder / "watched.html").write_text(page)
    (folder / "frame.html").write_text(FRAME % width)
    ran = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=20000",
            f"--window-size={width + 100},4000",
            *options,
            "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert told is not None
    assert told[1], ran.stderr[-2000:]
    return json.loads(html.unescape(told[1]))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "nasty"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(
        tmp_path_factory.mktemp("study"), nasty=request.param, name=NASTY if request.param else "Scale"
    )
    return write_report(folder)[0]


@pytest.mark.parametrize(
    ("width", "options"), [(1200, ()), (1200, (DARK,)), (390, ()), (390, (DARK,)), (320, ())]
)
def test_the_report_in_a_browser(report: Path, tmp_path: Path, width: int, options: tuple[str, ...]) -> None:
    page = seen(report, tmp_path, width, *options)
    assert page["errors"] == []
    assert page["loaded"] == []
    assert page["charts"] == 9  # all differences, and four of each study
    assert page["drawn"] == page["charts"]
    assert page["scroll"] <= page["width"]  # nothing to be scrolled sideways
    assert page["widest"] <= page["width"]
    light, dark = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
    assert page["background"] == (dark if options else light)
    assert page["axis"] == page["ink"]  # the charts' own text follows


def test_what_a_browser_would_complain_of_is_seen(report: Path, tmp_path: Path) -> None:
    """The watch itself: an error, a request and a wide element are noticed."""
    broken = tmp_path / "broken.html"
    wide = "<div style='width:2000px'>x</div><img src='https://example.org/x.png'><script>alert(1); none()</script>"
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text())
    broken.write_text(free.replace("<main>", "<main>" + wide, 1))
    page = seen(broken, tmp_path, 390)
    assert "alert: 1" in page["errors"]
    assert page["loaded"] == ["https://example.org/x.png"]
    assert any("none is not defined" in error for error in page["errors"])
    assert page["scroll"] > page["width"]


def test_marks_in_a_plan_are_not_made(tmp_path: Path) -> None:
    """A page whose every text would run a script shows them as text."""
    page = seen(write_report(hostile_study(tmp_path / "study"))[0], tmp_path, 1200)
    assert page["errors"] == []
    assert page["drawn"] == page["charts"] > 0


def test_the_policy_stops_what_is_not_escaped(report: Path, tmp_path: Path) -> None:
    """The second wall: the same texts as they are, and still nothing runs or loads."""
    broken = tmp_path / "broken.html"
    active = " ".join(mark for mark in MARKS if re.search("alert|https", mark))
    broken.write_text(report.read_text().replace("<main>", f"<main>{active}", 1))
    page = seen(broken, tmp_path, 1200)
    assert not any(error.startswith("alert") for error in page["errors"])
    assert {"refused: script-src-elem", "refused: script-src-attr", "refused: img-src"} <= set(page["errors"])
    assert page["drawn"] == page["charts"]
