"""The prompts of every task, as the paper's tables and its published code have them."""

from typing import Any

import pytest

from mezo.tasks import MASK, TASKS, HubDataset, Row

PREMISE, HYPOTHESIS = "Ann slept all day.", "Ann is tired."
PAIR = {"premise": PREMISE, "hypothesis": HYPOTHESIS}
SPANS = {"text": "The cup fell because it was wet.", "span1_text": "The cup", "span2_text": "It"}
CAUSAL: list[tuple[str, dict[str, Any], str, tuple[str, ...], int]] = [
    ("sst2", {"sentence": "so dull ", "label": 0}, "so dull It was", (" terrible", " great"), 0),
    (
        "sst5",
        {"sentence": "so fine", "label": 3},
        "so fine It was",
        (" terrible", " bad", " okay", " good", " great"),
        3,
    ),
    (
        "snli",
        {**PAIR, "label": 1},
        'Suppose Ann slept all day. Can we infer that "Ann is tired."? Yes, No, or Maybe?\n',
        ("Yes", "Maybe", "No"),
        1,
    ),
    (
        "mnli",
        {**PAIR, "label": "contradiction"},
        'Suppose Ann slept all day. Can we infer that "Ann is tired."? Yes, No, or Maybe?\n',
        ("Yes", "Maybe", "No"),
        2,
    ),
    (
        "rte",
        {**PAIR, "label": "not_entailment"},
        'Ann slept all day.\nDoes this mean that "Ann is tired." is true? Yes or No?\n',
        ("Yes", "No"),
        1,
    ),
    (
        "trec",
        {"text": "Who sings ?", "label": 3},
        "Question: Who sings ?\nType of answer:",
        (" Description", " Entity", " Expression", " Human", " Location", " Number"),
        3,
    ),
    (
        "cb",
        {**PAIR, "label": "neutral"},
        'Suppose Ann slept all day. Can we infer that "Ann is tired."? Yes, No, or Maybe?\n',
        ("Yes", "No", "Maybe"),
        2,
    ),
    (
        "boolq",
        {"passage": "Tea -- Tea is a drink.", "question": "is tea a drink", "label": True},
        "Tea -- Tea is a drink. Is tea a drink?\n",
        ("No", "Yes"),
        1,
    ),
    (
        "wsc",
        {**SPANS, "label": 0},
        "The cup fell because it was wet.\n"
        'In the previous sentence, does the pronoun "it" refer to The cup? Yes or No?\n',
        ("No", "Yes"),
        0,
    ),
    (
        "wic",
        {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": 1},
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\nA bank.\nThe bank.\n',
        ("No", "Yes"),
        1,
    ),
    (
        "multirc",
        {"paragraph": "Bo ran.", "question": "Who ran?", "answer": "Al", "label": 0},
        'Bo ran.\nQuestion: Who ran?\nI found this answer "Al". Is that correct? Yes or No?\n',
        ("No", "Yes"),
        0,
    ),
    (
        "copa",
        {"premise": "It rained.", "choice1": "I got wet.", "choice2": "The sun rose.", "question": "effect", "label": 0},
        "It rained so",
        (" I got wet.", " the sun rose."),
        0,
    ),
    (
        "copa",
        {"premise": "I left. ", "choice1": "It was late.", "choice2": "I ran.", "question": "cause", "label": 1},
        "I left because",
        (" it was late.", " I ran."),
        1,
    ),
    (
        "record",
        {
            "passage": "Al met Bo.\n@highlight\nBo smiled",
            "query": "@placeholder was glad, said @placeholder",
            "entities": ["Al", "Bo", "Al"],
            "answers": ["Bo"],
        },
        "Al met Bo.\n- Bo smiled\n-",
        (" Al was glad, said Al", " Bo was glad, said Bo"),
        1,
    ),
    (
        "squad",
        {"title": "Al", "context": "Al ate.", "question": " Who ate? ", "answers": {"text": ["Al", "al", "Al"]}},
        "Title: Al\nContext: Al ate.\nQuestion: Who ate?\nAnswer:",
        (" Al\n",),
        0,
    ),
    (
        "drop",
        {"passage": "Two men ate.", "question": "How many?", "answers_spans": {"spans": ["2"], "types": ["number"]}},
        "Passage: Two men ate.\nQuestion: How many?\nAnswer:",
        (" 2\n",),
        0,
    ),
]  # fmt: skip
MASKED: list[tuple[str, dict[str, Any], str, tuple[str, ...], int]] = [
    ("sst2", {"sentence": "so dull", "label": 0}, "so dull It was [MASK].", (" terrible", " great"), 0),
    (
        "sst5",
        {"sentence": "so fine", "label": 4},
        "so fine It was [MASK].",
        (" terrible", " bad", " okay", " good", " great"),
        4,
    ),
    ("snli", {**PAIR, "label": 0}, "Ann slept all day? [MASK], ann is tired.", (" Yes", " Maybe", " No"), 0),
    ("mnli", {**PAIR, "label": 2}, "Ann slept all day? [MASK], ann is tired.", (" Yes", " Maybe", " No"), 2),
    ("rte", {**PAIR, "label": 1}, "Ann slept all day? [MASK], ann is tired.", (" Yes", " No"), 1),
    (
        "trec",
        {"text": "Who sings ?", "label": 0},
        "[MASK]: Who sings ?",
        (" Description", " Entity", " Expression", " Human", " Location", " Number"),
        0,
    ),
    ("cb", {**PAIR, "label": 1}, "Ann slept all day? [MASK], ann is tired.", (" Yes", " No", " Maybe"), 1),
    (
        "boolq",
        {"passage": "Tea.", "question": "is it hot?", "label": False},
        "Tea. Is it hot? [MASK].",
        (" No", " Yes"),
        0,
    ),
]


def row(fields: dict[str, Any]) -> Row:
    return Row(fields, "data.jsonl", 3, is_line=True)


@pytest.mark.parametrize(("name", "fields", "prompt", "candidates", "answer"), CAUSAL)
def test_causal(
    name: str, fields: dict[str, Any], prompt: str, candidates: tuple[str, ...], answer: int
) -> None:
    example = TASKS[name].causal(row(fields))
    assert example.prompt == prompt
    assert (example.candidates, example.answer) == (candidates, answer)


@pytest.mark.parametrize(("name", "fields", "prompt", "candidates", "answer"), MASKED)
def test_masked(
    name: str, fields: dict[str, Any], prompt: str, candidates: tuple[str, ...], answer: int
) -> None:
    example = TASKS[name].masked(row(fields))
    assert example.prompt.replace(MASK, "[MASK]") == prompt
    assert (example.candidates, example.answer) == (candidates, answer)


def test_every_task_of_the_paper_is_here() -> None:
    assert {name for name, *_ in CAUSAL} == {
        name for name, task in TASKS.items() if isinstance(task.home, HubDataset) and name != "gsm8k"
    }


@pytest.mark.parametrize(
    ("premise", "kept"), [("Yes!", "Yes"), ("It is", "It is"), ("He said 'no.'", "He said 'no.'")]
)
def test_a_premise_without_a_full_stop_loses_nothing(premise: str, kept: str) -> None:
    example = TASKS["rte"].masked(row({"premise": premise, "hypothesis": "", "label": 0}))
    assert example.text == kept


def test_what_gives_way_is_the_passage() -> None:
    texts = {name: TASKS[name].causal(row(fields)).text for name, fields, *_ in CAUSAL}
    assert texts["squad"] == "Al ate."
    assert texts["drop"] == "Two men ate."
    assert texts["record"] == "Al met Bo.\n- Bo smiled"
    assert texts["multirc"] == "Bo ran."
    assert texts["boolq"] == "Tea -- Tea is a drink."
    assert texts["cb"] == texts["rte"] == PREMISE


def test_several_entities_may_be_right() -> None:
    fields = {
        "passage": "",
        "query": "@placeholder ran",
        "entities": ["Al", "Bo", "Al B."],
        "answers": ["Al B.", "Al"],
    }
    example = TASKS["record"].causal(row(fields))
    assert (example.answer, example.answers, example.references) == (0, (0, 2), ("Al B.", "Al"))


def test_the_answers_to_one_question_are_a_group() -> None:
    fields = {"paragraph": "Bo ran.", "question": "Who ran?", "answer": "Al", "label": 0}
    numbered = {**fields, "idx": {"paragraph": 3, "question": 11, "answer": 5}}
    groups = [TASKS["multirc"].causal(row(f)).group for f in (fields, {**fields, "answer": "Bo"}, numbered)]
    assert groups[0] == groups[1]
    assert groups[2] == "3-11"
    other = TASKS["multirc"].causal(row({**fields, "paragraph": "Cy ran."})).group
    assert other != groups[0]


def test_metrics() -> None:
    judged = {name: task.metrics for name, task in TASKS.items()}
    assert judged["cb"] == ("accuracy", "macro-f1")
    assert judged["multirc"] == ("accuracy", "multirc-f1a", "multirc-em")
    assert judged["record"] == ("accuracy", "record-f1", "record-em")
    assert judged["squad"] == ("squad-f1", "squad-em")
    assert judged["drop"] == ("drop-f1", "drop-em")
