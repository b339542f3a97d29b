"""What the documentation names is there: settings, files, names in the code, pages; and the site builds."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.pages import DOCS, ROOT, Page, check_value, navigation, pages, sources
from tests.test_recipes import RECIPES as FOLLOWED
from tools import draw_architecture, reference
from typer.main import get_command

import mezo
from mezo.cli import app
from mezo.cli.options import SETTINGS, flags_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.plugins import KINDS

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)
RECIPES = {recipe["file"] for recipe in FOLLOWED}
FOLDERS = {"src", "tests", "docs", "benchmarks", "examples", "tools", "mezo"}
PACKAGES = {path.name for path in (ROOT / "src/mezo").iterdir() if (path / "__init__.py").exists()}


# -------------------------------------------------------------------------------- names


def dotted_exists(name: str) -> bool:
    """Whether a dotted name that begins with a module leads somewhere."""
    parts = name.split(".")
    found: Any = mezo
    for n, part in enumerate(parts[1:], start=2):
        inner = getattr(found, part, None)
        if inner is None and part in getattr(found, "__annotations__", {}):
            return n == len(parts)  # a field without a default
        if inner is None:
            try:
                inner = importlib.import_module(".".join(parts[:n]))
            except ImportError:
                return False
        found = inner
    return True


@PAGES
def test_every_name_in_the_package_is_one(page: Page) -> None:
    code = "\n".join((*page.inline(), *(text for _, text in page.blocks())))
    names = set(re.findall(r"(?<![\w./-])mezo(?:\.[A-Za-z_]\w*)+(?!\.?[\w/-])", code))
    names -= {kind.group for kind in KINDS.values()}  # of entry points
    assert {name for name in names if not dotted_exists(name)} == set()


@pytest.mark.parametrize("name", ["mezo.nothing", "mezo.MeZO.nothing", "mezo.tasks.nothing.TASKS"])
def test_a_wrong_name_is_seen(name: str) -> None:
    assert not dotted_exists(name)


@PAGES
def test_every_identifier_occurs_in_the_code(page: Page) -> None:
    """`some_name`, `name=value`: a name of the package, of its tests, or of the page's own examples."""
    own = "\n".join(text for _, text in page.blocks())
    names = set()
    for code in page.inline():
        if (match := re.fullmatch(r"([a-z][a-z0-9]*(?:_[a-z0-9]+)+)(\(.*\))?", code)) or (
            match := re.fullmatch(r"([a-z]\w*)=[\w\".-]+", code)
        ):
            names.add(match[1])
    assert {name for name in names if not re.search(rf"\b{name}\b", sources() + own)} == set()


@PAGES
def test_every_setting_takes_its_value(page: Page) -> None:
    """`setting: value`, as in a YAML file."""
    wrong = []
    for code in page.inline():
        match = re.fullmatch(r"([a-z]\w*): (\S.*)", code)
        if match and match[1] in MeZOConfig.model_fields:
            try:
                check_value(match[1], yaml.safe_load(match[2]))
            except MezoError as error:
                wrong.append(f"{code}: {error}")
    assert wrong == []


@PAGES
def test_every_file_is_there(page: Page) -> None:
    """`src/mezo/types.py`, `engines/transformers/frozen_layers.py`: from the root of the repository, or of the package."""
    missing = []
    for code in page.inline():
        first, slash, _ = code.partition("/")
        if (
            not slash
            or not re.fullmatch(r"[\w./-]+", code)
            or re.search(r"[A-Z]{3,}", code.rsplit(".", 1)[0])
        ):
            continue
        if (first == "runs" and "." not in code) or code.removeprefix("src/mezo/") in RECIPES:
            continue  # an output folder of a command; a file that a recipe says to write
        if first in FOLDERS | PACKAGES and not any(
            (base / code).exists() for base in (ROOT, ROOT / "src", ROOT / "src/mezo")
        ):
            missing.append(code)
    assert missing == []


@PAGES
def test_every_example_in_python_is_python(page: Page) -> None:
    """It parses, its imports of mezo are there, and what it calls of mezo has such arguments."""
    for language, code in page.blocks():
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mezo":
                assert [a.name for a in node.names if not dotted_exists(f"{node.module}.{a.name}")] == []
            elif isinstance(node, ast.Call) and (name := ast.unparse(node.func)).startswith("mezo."):
                wanted = {keyword.arg for keyword in node.keywords}
                assert wanted <= arguments_of(reduce(getattr, name.split(".")[1:], mezo)), name


def arguments_of(function: Any) -> set[str | None]:
    """Of one that takes any, the settings too."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {*parameters, *(("output", "overwrite", *MeZOConfig.model_fields) if takes_any else ())}


@PAGES
def test_every_example_of_data_is_json(page: Page) -> None:
    for _, code in page.blocks():
        for line in code.splitlines():
            if line.startswith('{"'):
                assert isinstance(json.loads(line), dict)


@PAGES
def test_every_task_file_is_a_task(page: Page, tmp_path: Path) -> None:
    from mezo.tasks.load_task import read_task

    for _, code in page.blocks():
        if match := re.match(r"# (\w+\.yaml)\b", code):
            (tmp_path / match[1]).write_text(code, encoding="utf-8")
            assert read_task(tmp_path / match[1]).name == match[1].removesuffix(".yaml")


# -------------------------------------------------------------------------------- the site


@PAGES
def test_every_link_leads_somewhere(page: Page) -> None:
    known = {page.path for page in pages()}
    folder = (ROOT / page.path).parent
    for link in page.links():
        parts = urlsplit(link)
        if parts.scheme:
            assert (parts.scheme, bool(parts.hostname), " " in link) == ("https", True, False), link
        elif parts.path:
            target = (folder / parts.path).resolve()
            inside = target.is_relative_to(ROOT) and str(target.relative_to(ROOT)) in known
            assert inside or target.is_file(), f"{page.path}: {link}"


def test_the_picture_of_the_architecture_is_the_code_s() -> None:
    assert draw_architecture.drawn() == draw_architecture.PICTURE.read_text(encoding="utf-8"), (
        "python -m tools.draw_architecture draws it again"
    )
    for _, path in draw_architecture.FLOW:
        assert (draw_architecture.SOURCE / path).is_file()


def test_every_page_is_in_the_navigation_once() -> None:
    nav = list(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert sorted(nav) == sorted({*written, *reference.PAGES})


def test_the_reference_has_every_setting_and_every_option() -> None:
    page = reference.settings()
    for name, field in MeZOConfig.model_fields.items():
        flags = flags_of(name)
        row = re.search(rf"^\| `{name}`<br>(.*?) \| `(.*?)`<br>", page, re.MULTILINE)
        assert row is not None
        assert row[1] == " ".join(f"`{flag}`" for flag in "/".join(flags).split("/"))
        assert yaml.safe_load(row[2]) == field.default or str(field.default) == row[2]
    page = reference.commands()
    for path, command in reference.walk(get_command(app), ("mezo",)):
        section = page.split(f"## {' '.join(path)}\n")[1].split("\n## ")[0]
        own = {p.name for p in command.params if p.name not in SETTINGS}
        assert own == {p.name for p in command.params if p.name in own and f"`{p.opts[0]}`" in section} | {
            p.name for p in command.params if p.name in own and p.param_type_name == "argument"
        }


def test_tables_of_the_reference_have_their_columns() -> None:
    for make in (reference.settings, reference.commands):
        for table in re.findall(r"(?:^\|.*\n)+", make(), re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.slow
def test_the_site_builds_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    for path in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?([^\" >]+)", path.read_text()
        )
        assert [url for url in loaded if urlsplit(url).scheme] == [], path.name
    for path in tmp_path.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?https?:", path.read_text()) == [], path.name
