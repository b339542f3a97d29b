"""Rows as people write them are recognised by their fields; others are told what they come nearest to."""

import json
from pathlib import Path
from typing import Any

import pytest

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.errors import MezoError, MissingSplit
from mezo.tasks import TASKS, RowOptions, task_for
from mezo.tasks.recognise import FORMS

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
VALUES: dict[str, Any] = {"messages": TALK, "conversations": TALK, "conversation": TALK}


@pytest.mark.parametrize(
    ("needed", "name"), FORMS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_every_form_is_recognised_and_said(needed: tuple[str, ...], name: str) -> None:
    rows = [{field: VALUES.get(field, f"{field}{n}") for field in needed} | {"extra": 1} for n in range(3)]
    data = MeZODataset(rows)
    assert data.task.name == name
    assert data.words is not None
    assert all(f"`{field}`" in data.words for field in needed)
    assert len(data) == 3


@pytest.mark.parametrize("name", ["sst2", "trec", "boolq", "wic", "copa"])
def test_rows_of_a_public_task_get_its_prompt(name: str) -> None:
    task = TASKS[name]
    rows = [{**task.samples[0], "label": label} for label in range(len(task.classes))]
    data = MeZODataset(rows)
    assert data.task is task
    assert "--task" in (data.words or "")


def test_rows_that_several_tasks_have_are_a_question() -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": label} for label in (0, 1, 2)]
    with pytest.raises(MezoError, match=r"are those of tasks snli, mnli, cb: choose one with --task"):
        MeZODataset(rows)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            ["instruct", "respons"],
            r"nearest to `instruction`, `output`.*--columns instruction=instruct,output=respons",
        ),
        (["prompt", "complation"], r"nearest to `prompt`, `completion`.*--columns completion=complation"),
        (["question", "anwser"], r"--columns answer=anwser"),
        (["body", "team"], r"expected rows of one of these forms: messages; .*found fields `body`, `team`"),
        (["prompt", "chosen", "reject"], r"nearest to `chosen`, `rejected`.*--columns rejected=reject"),
    ],
)
def test_what_is_no_form_is_told_the_nearest(fields: list[str], said: str) -> None:
    with pytest.raises(MezoError, match=said) as caught:
        MeZODataset([dict.fromkeys(fields, "x")])
    assert "\n" not in str(caught.value)


def test_columns_are_read_as_the_fields_they_are_named() -> None:
    rows = [{"body": "the page is blank", "team": "web", "prompt": "other"}]
    reading = RowOptions(columns={"prompt": "body", "completion": "team"})
    data = MeZODataset(rows, task=task_for("auto", reading=reading))
    assert data.task.name == "prompt-completion"
    assert (data[0]["prompt"], data[0]["completion"]) == ("the page is blank", "web")
    with pytest.raises(MezoError, match=r"data\[0\]: expected a field 'text'"):
        MeZODataset(
            rows, task=task_for("auto", reading=RowOptions(columns={"prompt": "text", "completion": "team"}))
        )


def test_labels_are_those_of_the_training_rows(tmp_path: Path) -> None:
    train = [
        {"text": f"t{n}", "label": label} for n, label in enumerate(["web", "billing", "web", "10", "9"])
    ]
    for split, rows in (("train", train), ("validation", train[1:2])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = MeZODataset(tmp_path, split="validation")
    assert data.task.label_words == (" billing", " web", " 9", " 10")
    assert data.task.label(data.rows[0]) == 0
    assert data.task.causal(data.rows[0]).prompt == "t1\nLabel:"
    worded = MeZODataset(tmp_path, task=task_for("auto", ["a", "b", "c", "d"]))
    assert worded.task.label_words == (" a", " b", " c", " d")
    with pytest.raises(MezoError, match="expected 4 label words"):
        MeZODataset(tmp_path, task=task_for("auto", ["a", "b"]))
    with pytest.raises(MezoError, match=r"data\[0\]: expected a label of the training data .*, found 'ops'"):
        MeZODataset([{"text": "x", "label": "ops"}], task=data.task)
    with pytest.raises(MezoError, match="found 1: there is nothing to choose"):
        MeZODataset([{"text": "x", "label": "web"}])


def test_a_template_of_labelled_rows_keeps_their_classes() -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(["web", "billing"])]
    data = MeZODataset(rows, task=task_for("auto", template="{text} ->"))
    assert data.task.causal(data.rows[0]).prompt == "t0 ->"
    assert data.task.causal(data.rows[0]).candidates == (" billing", " web")


def config(**values: Any) -> MeZOConfig:
    return MeZOConfig.build(**values)


def test_a_share_is_held_out_and_the_rest_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": " c"}) + "\n" for n in range(40)))
    asked = config(data=str(path), split_sizes="10%", seed=3)
    train = training_set(asked, task_of(asked))
    held = validation_set(asked, train.task)
    assert held is not None
    assert (len(train), len(held)) == (36, 4)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held}
    with pytest.raises(MissingSplit):
        MeZODataset(path, split="test", split_sizes="10%")


def test_the_evaluation_examples_do_not_depend_on_the_runs_seed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": " c"}) + "\n" for n in range(60)))
    for sizes in ("20%", (10, 12, 5)):
        first, second = (
            config(data=str(path), split_sizes=sizes, seed=seed, eval_examples=6) for seed in (0, 1)
        )
        held = [validation_set(each, task_of(each)) for each in (first, second)]
        assert held[0] is not None
        assert held[1] is not None
        assert list(held[0]) == list(held[1])
        other = validation_set(first.model_copy(update={"eval_seed": 1}), task_of(first))
        assert other is not None
        assert list(other) != list(held[0])
        trained = [list(training_set(each, task_of(each))) for each in (first, second)]
        assert not [row for each in trained for row in each if row in list(held[0])]
        assert sizes == "20%" or trained[0] != trained[1]


@pytest.mark.parametrize("bad", ["0%", "100%", "ten%", "5,5", "%"])
def test_what_is_no_share(bad: str) -> None:
    with pytest.raises(MezoError, match="split_sizes"):
        config(split_sizes=bad)
