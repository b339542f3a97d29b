"""docs/security.md is true: its table of readers, their limits under broken files, and the tests that it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.pages import DOCS, ROOT

import mezo
from mezo.config import ASKED
from mezo.util import endpoint
from mezo.util.http_bounds import LONGEST

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc/self/statm")
TEXT = (DOCS / "security.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading."""
    rows = re.search(rf"## {heading}\n.*?\n((?:\|[^\n]*\n)+)", TEXT, re.DOTALL)
    assert rows is not None
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in rows[1].splitlines()[2:]
    ]


FILES = {
    row[0].strip("`"): (int(row[2]), int(row[3])) for row in table("Every reader") if row[0].startswith("`")
}


def run(wanted: dict[str, tuple[int, int]], count: int) -> dict[str, str]:
    sources = f"{Path(mezo.__file__).parents[1]}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.limits", str(count), json.dumps(wanted)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("count", [int(os.environ.get("MEZO_FUZZ_CASES", "60"))])
def test_every_reader_keeps_within_its_limits(count: int) -> None:
    assert run(FILES, count) == dict.fromkeys(FILES, f"{count} cases")


@linux
@pytest.mark.slow
def test_what_passes_a_limit_is_seen() -> None:
    found = run({"a loop": (1, 64), "a hog": (20, 64), "a crash": (20, 64)}, 1)
    assert found["a loop"] == "ended by SIGXCPU"
    assert found["a hog"].startswith("MemoryError")
    assert found["a crash"] == "ended by SIGSEGV"


def test_the_table_has_every_reader_of_the_suite() -> None:
    limits: Any = pytest.importorskip("tests.fuzz.limits")
    assert set(FILES) == set(limits.READERS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))))
def test_every_test_is_there(name: str) -> None:
    assert "def test_" in (ROOT / name).read_text(encoding="utf-8")


def test_answers_have_the_limits_of_the_table() -> None:
    rows = {row[0]: row[3] for row in table("Every reader")}
    assert int(rows["answers of a server"]) == LONGEST >> 20
    assert int(rows["answers of a planner's endpoint"]) == endpoint.LONGEST >> 20


def test_every_setting_that_is_asked_for_is_in_the_table() -> None:
    shown = " ".join(row[0] for row in table("Settings that reach beyond numbers"))
    assert all(name in shown for name in (*ASKED, "trust_remote_code", "data"))
