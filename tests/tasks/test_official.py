"""Labels and rows as the official files and the hub spell them, and complaints about all others."""

from collections.abc import Mapping
from typing import Any

import pytest

from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.tasks import TASKS

PAIR = {"premise": "a", "hypothesis": "b"}
LABELS: list[tuple[str, list[tuple[object, int]]]] = [
    ("sst2", [(0, 0), (1, 1), ("negative", 0), ("positive", 1)]),
    ("sst5", [(4, 4), ("very positive", 4), ("neutral", 2)]),
    ("snli", [(0, 0), ("entailment", 0), ("neutral", 1), ("contradiction", 2)]),
    ("mnli", [(2, 2), ("Contradiction", 2)]),
    ("rte", [(0, 0), ("entailment", 0), (1, 1), ("not_entailment", 1)]),
    ("cb", [(1, 1), ("contradiction", 1), ("neutral", 2)]),
    ("trec", [(0, 0), ("DESC", 0), ("ABBR", 2), ("NUM", 5)]),
    ("boolq", [(True, 1), (False, 0), (1, 1), ("true", 1), ("yes", 1), ("False", 0)]),
    ("wsc", [(True, 1), (0, 0), ("true", 1)]),
    ("wic", [(False, 0), (1, 1), ("false", 0)]),
    ("multirc", [(0, 0), (1, 1), (True, 1)]),
    ("copa", [(0, 0), (1, 1)]),
]


@pytest.mark.parametrize(("name", "label", "number"), [(n, *pair) for n, pairs in LABELS for pair in pairs])
def test_official_spellings(name: str, label: object, number: int) -> None:
    data = MeZODataset([{**TASKS[name].samples[0], "label": label}], task=name)
    assert TASKS[name].label(data.rows[0]) == number
    assert TASKS[name].causal(data.rows[0]).answer == number


@pytest.mark.parametrize("label", [7, "perhaps", None, 0.5, [0], "", "9", {}])
@pytest.mark.parametrize("name", [name for name, _ in LABELS])
def test_other_labels_are_named_with_the_row(name: str, label: object) -> None:
    with pytest.raises(MezoError, match=r"^data\[0\]: expected field 'label' to be one of 0 \(.*; found "):
        MeZODataset([{**TASKS[name].samples[0], "label": label}], task=name)


@pytest.mark.parametrize("name", [name for name, _ in LABELS])
def test_a_number_of_a_class_may_be_text_as_in_a_csv(name: str) -> None:
    found = [MeZODataset([{**TASKS[name].samples[0], "label": label}], task=name) for label in (1, "1")]
    assert TASKS[name].label(found[0].rows[0]) == TASKS[name].label(found[1].rows[0]) == 1


def test_trecs_numbers_of_coarse_classes_are_the_hubs_also_as_text() -> None:
    rows = [[{"text": "who?", "coarse_label": label}] for label in (3, "3")]
    found = [MeZODataset(each, task="trec") for each in rows]
    assert TASKS["trec"].label(found[0].rows[0]) == TASKS["trec"].label(found[1].rows[0])


@pytest.mark.parametrize("name", ["rte", "mnli", "cb", "sst2", "sst5", "copa", "trec"])
@pytest.mark.parametrize("label", [True, False])
def test_true_is_no_label_where_no_class_is_true(name: str, label: bool) -> None:
    with pytest.raises(MezoError, match=rf"found {label} \(bool\)"):
        MeZODataset([{**TASKS[name].samples[0], "label": label}], task=name)


@pytest.mark.parametrize("name", ["rte", "boolq", "mnli", "copa"])
def test_unlabelled_rows_say_so(name: str) -> None:
    with pytest.raises(
        MezoError, match=r"found -1 \(int\), which marks examples without a label: choose a split"
    ):
        MeZODataset([{**TASKS[name].samples[0], "label": -1}], task=name)


def one(name: str, fields: Mapping[str, Any]) -> Any:
    data = MeZODataset([fields], task=name)
    return data.task.causal(data.rows[0])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("sst2", {"text": "fine", "label": 1, "label_text": "positive"}),
        ("snli", {"sentence1": "a", "sentence2": "b", "gold_label": "neutral"}),
        ("rte", {"sentence1": "a", "sentence2": "b", "label": 0}),
        ("boolq", {"passage": "a", "question": "b", "answer": True}),
        ("trec", {"text": "Who ?", "coarse_label": 3, "fine_label": 28}),
        ("trec", {"text": "Who ?", "coarse_label": "HUM"}),
    ],
)
def test_other_official_names_of_fields(name: str, other: dict[str, Any]) -> None:
    data = MeZODataset([other], task=name)
    assert other.items() <= dict(data[0]).items()
    example = data.task.causal(data.rows[0])
    assert all(
        value in example.prompt.lower() for value in ("fine", "a", "b", "who") if value in other.values()
    )


def test_the_hub_numbers_trec_in_its_own_order() -> None:
    words = [one("trec", {"text": "?", "coarse_label": n}).answer for n in range(6)]
    assert words == [2, 1, 0, 3, 4, 5]
    with pytest.raises(MezoError, match=r"expected field 'label' to be one of .* found 6"):
        one("trec", {"text": "?", "coarse_label": 6})


def test_wsc_with_its_target_nested() -> None:
    target = {"span1_text": "The cup", "span1_index": 0, "span2_text": "it", "span2_index": 4}
    example = one("wsc", {"text": "The cup fell: it was wet.", "target": target, "label": True})
    assert 'does the pronoun "it" refer to The cup?' in example.prompt


MULTIRC = {
    "idx": 4,
    "version": 1.1,
    "passage": {
        "text": "Bo ran.",
        "questions": [
            {
                "question": "Who ran?",
                "idx": 9,
                "answers": [{"text": "Al", "idx": 1, "label": 0}, {"text": "Bo", "idx": 2, "label": 1}],
            }
        ],
    },
}


def test_multirc_nested() -> None:
    data = MeZODataset([MULTIRC], task="multirc")
    examples = [data.task.causal(row) for row in data.rows]
    assert [e.answer for e in examples] == [0, 1]
    assert [e.group for e in examples] == ["4-9", "4-9"]
    assert 'I found this answer "Bo".' in examples[1].prompt
    assert examples[1].text == "Bo ran."


def test_record_nested() -> None:
    text = "Al met Bo and Al."
    fields = {
        "idx": 1,
        "passage": {
            "text": text,
            "entities": [{"start": 0, "end": 1}, {"start": 7, "end": 8}, {"start": 14, "end": 15}],
        },
        "qas": [
            {"idx": 2, "query": "@placeholder was met", "answers": [{"start": 7, "end": 8, "text": "Bo"}]}
        ],
    }
    example = one("record", fields)
    assert example.candidates == (" Al was met", " Bo was met")
    assert (example.answer, example.references) == (1, ("Bo",))


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["in May", "May"], "answer_start": [3, 6]},
        [{"text": "in May", "answer_start": 3}, {"text": "May", "answer_start": 6}],
        ["in May", "May"],
    ],
)
def test_answers_of_squad(answers: Any) -> None:
    example = one("squad", {"title": "", "context": "", "question": "When?", "answers": answers})
    assert (example.candidates, example.references) == ((" in May\n",), ("in May", "May"))


def test_squad_in_articles() -> None:
    qa = {"id": "1", "question": "Who?", "answers": [{"text": "Bo", "answer_start": 0}]}
    article = {
        "title": "Run",
        "paragraphs": [{"context": "Bo ran.", "qas": [qa, {**qa, "question": "What?"}]}],
    }
    data = MeZODataset([article], task="squad")
    assert [data.task.causal(row).prompt for row in data.rows] == [
        "Title: Run\nContext: Bo ran.\nQuestion: Who?\nAnswer:",
        "Title: Run\nContext: Bo ran.\nQuestion: What?\nAnswer:",
    ]


def test_questions_without_an_answer_are_left_out() -> None:
    row = dict(TASKS["squad"].samples[0])
    nothing = {**row, "answers": {"text": [], "answer_start": []}}
    with pytest.warns(MezoWarning, match="1 of 2 examples left out: no answer in the passage"):
        assert len(MeZODataset([row, nothing], task="squad")) == 1
    with pytest.raises(MezoError, match="expected examples to use, found 1 with no answer"):
        MeZODataset([nothing], task="squad")


@pytest.mark.parametrize(
    ("answer", "first", "references"),
    [
        ({"number": "3", "date": {}, "spans": []}, "3", ("3",)),
        ({"number": 0, "date": {}, "spans": []}, "0", ("0",)),
        ({"number": "", "date": {"day": "4", "month": "May", "year": ""}, "spans": []}, "4 May", ("4 May",)),
        ({"number": "", "date": {}, "spans": ["Al", "Bo"]}, "Al", ("Al", "Bo")),
    ],
)
def test_the_original_answers_of_drop(answer: Any, first: str, references: tuple[str, ...]) -> None:
    passage = {"passage": "p", "qa_pairs": [{"question": "q", "query_id": "1", "answer": answer}]}
    for fields in (passage, {"passage": "p", "question": "q", "answer": answer}):
        example = one("drop", fields)
        assert (example.candidates, example.references) == ((f" {first}\n",), references)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("copa", {"question": "why"}, "expected field 'question' to be 'cause' or 'effect', found 'why'"),
        ("record", {"query": "no gap"}, "expected @placeholder in field 'query', found none"),
        (
            "record",
            {"answers": ["Nobody"]},
            "expected one of the 6 entities in field 'answers', found 'Nobody'",
        ),
        ("record", {"answers": []}, "found none; choose a split that has answers"),
        ("record", {"entities": [1]}, "expected a list of texts in field 'entities'"),
        ("squad", {"answers": {"texts": ["x"]}}, "expected field 'answers' to hold"),
        ("squad", {"answers": {"text": [" "]}}, "expected at least one answer, found none"),
        ("squad", {"context": None}, "expected text in field 'context', found None"),
        ("drop", {"answers_spans": {"spans": []}}, "expected at least one answer, found none"),
        ("drop", {"answers_spans": 5}, "expected field 'answers_spans' to hold"),
    ],
)
def test_wrong_rows_are_named(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=r"^data\[0\]: ") as caught:
        one(name, {**TASKS[name].samples[0], **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("multirc", {**MULTIRC, "passage": {"text": "a", "questions": ["q"]}}),
        ("record", {"passage": {"text": "a", "entities": [{"start": 1}]}, "qas": []}),
        ("squad", {"title": "", "paragraphs": 5}),
    ],
)
def test_a_broken_nested_object_is_one_line(name: str, broken: dict[str, Any]) -> None:
    with pytest.raises(
        MezoError, match=rf"^data\[0\]: expected an object as the official files of task '{name}'"
    ):
        one(name, broken)
