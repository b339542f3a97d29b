"""Docstrings of the public names follow one template, and their examples run."""

import doctest
import json
import re
from pathlib import Path

import pytest
from tests.resumed import base

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


@pytest.mark.filterwarnings("ignore::mezo.events.MezoWarning")
@pytest.mark.parametrize("name", mezo.__all__)
def test_its_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    test = doctest.DocTestParser().get_doctest(getattr(mezo, name).__doc__, {}, name, None, 0)
    assert test.examples
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)
