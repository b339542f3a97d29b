"""The recipes of CONTRIBUTING.md, followed word for word in a copy of the package: one file and one line each."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.resumed import ROWS, base

import mezo

ROOT = Path(__file__).parents[1]
RECIPE = re.compile(
    r"`src/mezo/(?P<file>[\w/]+\.py)`:\n\n```python\n(?P<code>.*?)```\n\n"
    r"One line in `src/mezo/(?P<registry>[\w/]+\.py)`, (?P<table>[A-Z]+): `(?P<line>.+?)`\n",
    re.DOTALL,
)
RECIPES = [
    match.groupdict() for match in RECIPE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
]
NAMES = ("backward", "inverse-time", "margin", "capitals", "error-rate", "tickets", "gains", ".tsv", "local")

# Two more estimators of unusual kinds: one goes along a direction of an earlier step, one asks twice in a step.
EARLIER = """
from dataclasses import dataclass
from mezo.estimators.base import as_float32
from mezo.estimators.two_point import TwoPoint
from mezo.types import Direction, Probe

@dataclass(frozen=True)
class Earlier(TwoPoint):
    def _seeds(self, draw):
        return (draw.seed_of(max(0, draw.step - 1)) if draw.step else draw.seeds[0], *draw.seeds[1:])
    def ask(self, draw, state=None):
        return tuple(Probe(seed, sign * self.epsilon) for seed in self._seeds(draw) for sign in (1, -1))
    def directions(self, draw, values):
        return tuple(Direction(seed, value) for seed, value in zip(self._seeds(draw), values, strict=True))
"""
TWICE = """
from dataclasses import dataclass
from mezo.estimators.base import Estimator, as_float32
from mezo.types import THETA, Probe

@dataclass(frozen=True)
class Twice(Estimator):
    epsilon: float = 1e-3
    def ask(self, draw, state=None):
        return (THETA, *(Probe(seed, self.epsilon) for seed in draw.seeds))
    def ask_again(self, draw, losses, state=None):
        return () if len(losses) > len(draw.seeds) + 1 else tuple(Probe(seed, -self.epsilon) for seed in draw.seeds)
    def tell(self, draw, losses, state=None):
        n = len(draw.seeds)
        pairs = zip(losses[1 : n + 1], losses[n + 1 :], strict=True)
        return tuple(as_float32((plus - minus) / (2 * self.epsilon)) for plus, minus in pairs), state
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder in which the recipes were followed."""
    source = tmp_path_factory.mktemp("copy") / "src"
    shutil.copytree(Path(mezo.__file__).parent, source / "mezo", ignore=shutil.ignore_patterns("__pycache__"))
    more = [
        {
            "file": f"estimators/{name.lower()}.py",
            "code": code,
            "registry": "estimators/__init__.py",
            "table": "ESTIMATORS",
            "line": f'"{name.lower()}": {name},',
        }
        for name, code in (("Earlier", EARLIER), ("Twice", TWICE))
    ]
    for recipe in (*RECIPES, *more):
        follow(source / "mezo", **recipe)
    return source


def follow(package: Path, *, file: str, code: str, registry: str, table: str, line: str) -> None:
    """Write the file; add the line to the table, and what it names to the imports."""
    place = package / file
    place.parent.mkdir(exist_ok=True)
    (place.parent / "__init__.py").touch()
    place.write_text(code)
    text = (package / registry).read_text()
    name = re.findall(r"\w+", line.rpartition(": ")[2])[0]
    if re.search(rf"(class|def) {name}\b|^{name} =", code, re.MULTILINE):
        module = "mezo." + file.removesuffix(".py").replace("/", ".")
        text = re.sub(r"^(?=from mezo)", f"from {module} import {name}\n", text, count=1, flags=re.MULTILINE)
    opened = re.search(rf"^{table}\b.*?(\{{|\(\n)[^\n]*\n", text, re.MULTILINE | re.DOTALL)
    assert opened is not None
    if "for " in text[opened.end() : opened.end() + 80]:  # a table made of a list of entries
        opened = re.search(r" in \(\n", text)
        assert opened is not None
    (package / registry).write_text(text[: opened.end()] + f"    {line}\n" + text[opened.end() :])


def run(source: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{source}{os.pathsep}{ROOT}",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *command], cwd=source, env=environment, capture_output=True, text=True, check=False
    )


def test_there_is_a_recipe_for_each_kind() -> None:
    assert len(RECIPES) == len(NAMES)


@pytest.mark.slow
def test_help_and_reference_list_what_was_added(package: Path) -> None:
    shown = run(package, "-m", "mezo", "train", "--help").stdout + run(package, "-m", "mezo", "tasks").stdout
    assert [name for name in NAMES if name not in shown] == []
    page = run(package, "-c", "from tools import reference; print(reference.settings())").stdout
    assert [name for name in NAMES if f"`{name}`" not in page] == []


@pytest.mark.slow
def test_all_of_it_trains(package: Path, tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), tmp_path / "rows.tsv"
    rows.write_text("sentence\tlabel\n" + "".join(f"{r['sentence']}\t{r['label']}\n" for r in ROWS))
    common = (
        "-m",
        "mezo",
        "train",
        "--model",
        str(model),
        "--task",
        "sst2",
        "--data",
        str(rows),
        "--steps",
        "3",
        "--batch",
        "3",
    )
    for number, options in enumerate(
        (
            (
                "--estimator",
                "backward",
                "--optimizer",
                "inverse-time",
                "--tuning",
                "gains",
                "--objective",
                "margin",
            ),
            ("--estimator", "earlier", "--directions", "2"),
            ("--estimator", "twice", "--blocks", "each", "--clip-quantile", "0.5"),
            ("--engine", "local", "--tuning", "lora", "--start", "model"),
            ("--tuning", "lora", "--start", "model"),
        )
    ):
        done = run(package, *common, *options, "--output", str(tmp_path / str(number)))
        assert done.returncode == 0, done.stderr
    slopes = [
        [
            json.loads(line).get("projected_grads")
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("3", "4")
    ]
    for local, ours in zip(*slopes, strict=True):
        assert local == pytest.approx(
            ours, rel=1e-3, abs=1e-3
        )  # float32 sums in another order, over 2 eps = 2e-3


@pytest.mark.slow
def test_the_tests_over_registries_pass(package: Path) -> None:
    """Those that know nothing of the new entries."""
    tests = ROOT / "tests"
    done = run(
        package,
        *(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-o",
            "pythonpath=",
            "--rootdir",
            str(ROOT),
        ),
        *(
            str(tests / name)
            for name in ("estimators", "optimizers/test_pairs.py", "resume/test_replay_steps.py")
        ),
        *("-k", "backward or earlier or twice or inverse-time"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"(\d\d+) passed", done.stdout)
