"""Tasks of one's own: a YAML file, or a class."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.tasks import MASK, HubDataset, Row, Task, task_for
from mezo.util import plugins

TICKETS = """
prompt: "Ticket: {text}\\nTeam:"
masked: "{mask} ticket: {text}"
label: team
label_words: [Web, Billing, No]
labels: [web, bills, no]
hub: {id: them/tickets, config: small, splits: {validation: held_out}}
samples:
  - {text: the page is blank, team: web}
"""


def write(path: Path, content: str | dict[str, Any]) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def one(path: str, fields: dict[str, Any]) -> Any:
    data = MeZODataset([fields], task=path)
    return data.task.causal(data.rows[0])


def test_classification(tmp_path: Path) -> None:
    task = task_for(write(tmp_path / "tickets.yaml", TICKETS))
    assert (task.name, task.fields, task.metrics) == ("tickets", ("text", "team"), ("accuracy",))
    assert task.home == HubDataset("them/tickets", "small", {"validation": "held_out"})
    row = Row({"text": " no invoice ", "team": "bills"}, "data", 0)
    assert task.label(row) == 1
    causal, masked = task.causal(row), task.masked(row)
    assert (causal.prompt, causal.answer) == ("Ticket: no invoice\nTeam:", 1)
    assert causal.candidates == masked.candidates == (" Web", " Billing", " No")
    assert masked.prompt == f"{MASK} ticket: no invoice"
    assert causal.text == masked.text == "no invoice"
    assert task.causal(Row(task.samples[0], "made up", 0)).answer == 0


def test_label_words_and_templates_can_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.yaml", TICKETS)
    task = task_for(path, ("A", "B", "C"), "{text}\nIs it A, B or C?\n")
    example = task.causal(Row({"text": "x", "team": "no"}, "data", 0))
    assert (example.prompt, example.candidates, example.answer) == (
        "x\nIs it A, B or C?\n",
        ("A", "B", "C"),
        2,
    )


@pytest.mark.parametrize(
    ("given", "value", "number"),
    [
        ({"label_words": ["bad", "good"]}, 1, 1),
        ({"label_words": ["bad", "good"]}, "good", 1),
        ({"labels": [1, 2], "label_words": ["bad", "good"]}, 2, 1),
        ({"labels": [False, True], "label_words": ["bad", "good"]}, True, 1),
        ({"labels": ["bad", "good"]}, "bad", 0),
    ],
)
def test_labels_as_they_are_in_the_data(
    tmp_path: Path, given: dict[str, Any], value: object, number: int
) -> None:
    path = write(tmp_path / "t.yml", {"prompt": "{q} is", **given})
    example = one(path, {"q": "it", "label": value})
    assert (example.answer, example.candidates) == (number, (" bad", " good"))


@pytest.mark.parametrize("value", [0, 3, "1", True, None])
def test_numbers_as_labels_are_exactly_those(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "t.yaml", {"prompt": "{q}", "labels": [1, 2], "label_words": ["bad", "good"]})
    with pytest.raises(MezoError, match=r"^data\[0\]: expected field 'label' to be one of 1, 2; found "):
        one(path, {"q": "it", "label": value})


@pytest.mark.parametrize(
    ("answer", "right"), [("b", (1,)), (1, (1,)), (["c", "a"], (0, 2))], ids=["text", "index", "several"]
)
def test_candidates_of_each_row(tmp_path: Path, answer: object, right: tuple[int, ...]) -> None:
    path = write(tmp_path / "t.yaml", {"prompt": "{q}", "answer": "a", "candidates": "c"})
    example = one(path, {"q": "?", "a": answer, "c": ["a", "b", "c"]})
    assert example.candidates == (" a", " b", " c")
    assert (example.answers or (example.answer,)) == right
    assert example.references == tuple("abc"[i] for i in right)


def test_free_answers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.yaml", {"prompt": "{p}\nQ: {q}\nA:", "answer": "a", "cut": "q", "metrics": ["drop-f1"]}
    )
    task = task_for(path)
    assert (task.has_candidates, task.metrics) == (False, ("drop-f1",))
    example = one(path, {"p": "long", "q": "why?", "a": ["so", "because"]})
    assert (example.candidates, example.references) == ((" so\n",), ("so", "because"))
    assert (example.head, example.text, example.tail) == ("long\nQ: ", "why?", "\nA:")


GOOD = {"prompt": "{q}", "label_words": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "expected a mapping such as 'prompt: ...', found list"),
        ("prompt: [", "not a readable task file"),
        ({**GOOD, "promt": "x"}, "unknown field 'promt'; did you mean 'prompt'?"),
        ({**GOOD, "prompt": 5}, "field 'prompt': input should be a valid string, found 5 (int)"),
        ({**GOOD, "label_words": "a,b"}, "field 'label_words': input should be a valid list"),
        ({**GOOD, "hub": {"id": "a", "split": "b"}}, "hub"),
        (
            {"label_words": ["a", "b"]},
            "expected 'prompt' (for causal models), 'masked' (for masked ones), or both",
        ),
        ({**GOOD, "prompt": "{q} {mask}"}, "prompt: {mask} is for masked models"),
        ({**GOOD, "masked": "{q}"}, "masked: expected {mask} in the template, once"),
        ({**GOOD, "prompt": "none"}, "expected the name of a field in braces in every template"),
        ({**GOOD, "prompt": "{q"}, "template '{q'"),
        ({**GOOD, "cut": "p"}, "cut: no such field in the template: 'p'"),
        (
            {**GOOD, "answer": "a"},
            "expected 'answer', or 'label' with 'labels' and 'label_words'; found both",
        ),
        ({"prompt": "{q}"}, "expected 'label_words' (the answers), or 'answer'"),
        ({**GOOD, "candidates": "c"}, "candidates: expected 'answer' beside it"),
        ({**GOOD, "labels": ["x"]}, "expected two or more labels, and one label word for each of them"),
        ({**GOOD, "label_words": ["a"]}, "expected two or more labels"),
        ({**GOOD, "label_words": ["a", "a"]}, "label_words: expected different ones, found a, a"),
        ({**GOOD, "metrics": ["acuracy"]}, "unknown metric 'acuracy'; did you mean 'accuracy'?"),
        ({**GOOD, "metrics": ["squad-f1"]}, "unknown metric 'squad-f1'"),
    ],
)
def test_mistakes_name_the_file_and_the_field(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "my.yaml", content)
    with pytest.raises(MezoError) as caught:
        task_for(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=r"nowhere\.yaml: not a readable task file: .*No such file"):
        task_for(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"q": "?", "c": ["a"], "a": "b"}, "expected field 'a' to be one of the 1 candidates in 'c'"),
        ({"q": "?", "c": ["a"], "a": 1}, "or its index; found 1 (int)"),
        ({"q": "?", "c": ["a"], "a": True}, "found True (bool)"),
        ({"q": "?", "c": [], "a": 0}, "expected some text in field 'c', found none"),
        ({"q": "?", "c": "ab"}, "expected a field 'a', found fields 'q', 'c'"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "t.yaml", {"prompt": "{q}", "answer": "a", "candidates": "c"})
    with pytest.raises(MezoError, match=r"^data\[0\]: ") as caught:
        one(path, fields)
    assert message in str(caught.value)


def test_a_form_that_is_not_written_is_asked_for(tmp_path: Path) -> None:
    row = Row({"q": "?", "label": 0}, "data", 0)
    with pytest.raises(MezoError, match=r"a\.yaml: expected 'masked', a template with \{mask\} in it"):
        task_for(write(tmp_path / "a.yaml", GOOD)).masked(row)
    only = {"masked": "{q} {mask}", "label_words": ["a", "b"]}
    with pytest.raises(MezoError, match=r"b\.yaml: expected 'prompt', which a causal model needs"):
        task_for(write(tmp_path / "b.yaml", only)).causal(row)


MODULE = '''
from dataclasses import dataclass

from mezo.tasks import Classification, Row, Task, TextExample


@dataclass(frozen=True, kw_only=True)
class Spam(Classification):
    """Is a message spam?"""

    name: str = "spam"
    fields: tuple[str, ...] = ("message", "label")
    classes: tuple[tuple[str, ...], ...] = (("ham",), ("spam",))
    label_words: tuple[str, ...] = (" No", " Yes")

    def causal(self, row: Row) -> TextExample:
        return self.asked(row, row.text("message"), tail="\\nSpam?")


READY = Spam(name="ready")
NUMBER = 5


class Half(Spam):
    def __init__(self, size):
        pass
'''


def test_a_class_of_twenty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spam_of_this_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "is_allowed", lambda name: True)
    example = one("spam_of_this_test:Spam", {"message": "Win!", "label": "spam"})
    assert (example.prompt, example.candidates, example.answer) == ("Win!\nSpam?", (" No", " Yes"), 1)
    assert task_for("spam_of_this_test:READY").name == "ready"
    for name, message in (
        ("spam_of_this_test:Span", "spam_of_this_test has no 'Span'; did you mean 'Spam'"),
        ("no_such_module_here:Task", "No module named 'no_such_module_here'"),
        ("spam_of_this_test:NUMBER", "expected a mezo.tasks.base.Task, found 5"),
        ("spam_of_this_test:Half", "give each of its fields a default"),
    ):
        with pytest.raises(MezoError) as caught:
            task_for(name)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"task {name!r}: ")


def test_a_task_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Task(name="x", fields=())  # type: ignore[abstract]
