"""Docstrings of the public names follow one template, and their examples run."""

import doctest
import inspect
import json
import re
from pathlib import Path

import pytest
from tests.resumed import base

import mezo
from mezo.estimators import ESTIMATORS
from mezo.objectives import OBJECTIVES
from mezo.optimizers import OPTIMIZERS

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


ENTRIES = {
    **{f"estimator {name}": kind for name, kind in ESTIMATORS.items()},
    **{f"optimizer {name}": kind for name, kind in OPTIMIZERS.items()},
    **{f"objective {name}": type(objective) for name, objective in OBJECTIVES.items()},
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_a_registry_has_a_reference_and_an_example_that_runs(name: str) -> None:
    doc = inspect.cleandoc(ENTRIES[name].__dict__["__doc__"])
    assert {"Reference", "Example"} <= set(re.findall(r"^(\w+):$", doc, re.MULTILINE))
    run(doc, name)


@pytest.mark.filterwarnings("ignore::mezo.events.MezoWarning")
@pytest.mark.parametrize("name", mezo.__all__)
def test_its_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run(getattr(mezo, name).__doc__, name)


def run(doc: str, name: str) -> None:
    """Run the examples in a docstring."""
    test = doctest.DocTestParser().get_doctest(doc, {}, name, None, 0)
    assert test.examples
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)
