"""Docstrings of the public names follow one template, and their examples run."""

import doctest
import inspect
import json
import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.pages import words
from tests.resumed import base
from tests.test_docs_commands import check_command
from tools.reference import REGISTRIES

import mezo

NEEDED = {
    "MeZO": {"Args", "Raises", "Reference", "Example"},
    "MeZOConfig": {"Args", "Raises", "Reference", "Example"},
    "MeZODataset": {"Args", "Raises", "Example"},
    "MeZOTrainer": {"Args", "Raises", "Example"},
    "MezoError": {"Example"},
    "TrainResult": {"Args", "Example"},
    "load_finetuned": {"Args", "Returns", "Raises", "Example"},
    "mezo_finetune": {"Args", "Returns", "Raises", "Reference", "Example"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples are started in: a model and a file of rows."""
    place = tmp_path_factory.mktemp("examples")
    base(place / "my-model")
    rows = [{"prompt": f"Ticket: {t}\nTeam:", "completion": " web"} for t in ("gab", "hat", "gig", "hub")]
    (place / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def test_every_public_name_is_here() -> None:
    assert NEEDED.keys() == set(mezo.__all__)


@pytest.mark.parametrize("name", mezo.__all__)
def test_it_follows_the_template(name: str) -> None:
    doc = getattr(mezo, name).__doc__
    summary, blank, *_ = doc.split("\n")
    assert summary.endswith((".", ";"))
    assert blank.strip() == ""
    assert set(re.findall(r"^    (\w+):$", doc, re.MULTILINE)) == NEEDED[name]


# What an entry of each registry has; a section may be one line ("Reference: ...").
SECTIONS = {
    "estimators": {"Reference", "Example"},
    "optimizers": {"Reference", "Example"},
    "objectives": {"Reference", "Example"},
    "tasks": {"Reference", "Example"},
    "metrics": {"Reference", "Example"},
    "tuning modes": {"Raises", "Example"},
    "data formats": {"Raises", "Example"},
    "engines": {"Example"},
    "rewards": {"Example"},
    "logs": {"Example"},
}
NO_PAPER = {f"tasks {name}" for name in ("prompt-completion", "chat", "question-answer", "text", "labelled")}
NO_PAPER |= {"metrics accuracy"}
TABLES = {
    registry: getattr(import_module(module), table)
    for registry, (module, table) in (
        (registry, place.split(":")) for registry, place in {**REGISTRIES, "logs": "mezo.sinks:SINKS"}.items()
    )
}


def documented(registry: str, name: str, entry: Any) -> Any:
    """The class or function that an entry of a registry is."""
    if registry == "engines":
        module = "transformers.engine" if entry is None else f"{name}.backend"
        found = vars(import_module(f"mezo.engines.{module}")).values()
        return next(kind for kind in found if inspect.isclass(kind) and kind.__module__.endswith(module))
    if registry == "logs":
        return getattr(import_module(entry.module), entry.name)
    if registry == "metrics":
        entry = getattr(entry, "score", None) or entry.of
    if isinstance(entry, partial):
        return entry.func
    return entry if inspect.isclass(entry) or inspect.isfunction(entry) else type(entry)


ENTRIES = {
    f"{registry} {name}": (registry, documented(registry, name, entry))
    for registry, table in TABLES.items()
    for name, entry in table.items()
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_a_registry_has_its_sections_and_an_example_that_runs(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, entry = ENTRIES[name]
    doc = inspect.cleandoc(entry.__dict__.get("__doc__") or entry.__doc__ or "")
    needed = SECTIONS[registry] - ({"Reference"} if name in NO_PAPER else set())
    assert needed <= set(re.findall(r"^(\w+):(?: |$)", doc, re.MULTILINE))
    if registry in ("engines", "logs"):
        check_command(words(doc.partition("Example:\n")[2].strip()))
        return
    monkeypatch.chdir(folder)
    run(doc, name, vars(import_module(entry.__module__)))


@pytest.mark.filterwarnings("ignore::mezo.events.MezoWarning")
@pytest.mark.parametrize("name", mezo.__all__)
def test_its_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run(getattr(mezo, name).__doc__, name)


def run(doc: str, name: str, names: Mapping[str, Any] | None = None) -> None:
    """Run the examples in a docstring, with the names of its module."""
    test = doctest.DocTestParser().get_doctest(doc, dict(names or {}), name, None, 0)
    assert test.examples
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)
