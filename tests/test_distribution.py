"""The name under which the package is installed, wherever it is written."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = re.compile(r"(?<![\w./-])(mezo[\w-]*)\[([a-z, ]+)\]")


def test_every_install_line_names_the_distribution_and_its_extras() -> None:
    extras, found = set(PROJECT["optional-dependencies"]), 0
    files = [
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("*.toml"),
    ]
    for path in files:
        for name, asked in NAMED.findall(path.read_text(encoding="utf-8")):
            assert name == PROJECT["name"], f"{path}: {name}[{asked}]"
            assert set(re.split(r",\s*", asked)) <= extras, f"{path}: {name}[{asked}]"
            found += 1
    assert found > 10
