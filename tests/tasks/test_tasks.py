"""Tasks: the paper's templates, and complaints that say where to look."""

import json
from collections.abc import Mapping

import pytest
from tests.shared import shared

from mezo.errors import MezoError
from mezo.tasks import MASK, TASKS, HubDataset, Row

ROW = {
    "sst2": {"sentence": "fine .", "label": 1},
    "prompt-completion": {"prompt": "Q: 1+1?\nA:", "completion": " 2"},
}
ROW["demo"] = ROW["sst2"]


def row(fields: Mapping[str, object], line: int = 3) -> Row:
    return Row(fields, "data.jsonl", line, is_line=True)


def test_sst2_causal_is_the_papers() -> None:
    example = TASKS["sst2"].causal(row({"sentence": " a fine film . ", "label": 1}))
    assert example.prompt == "a fine film . It was"
    assert example.prompt + example.candidates[0] == "a fine film . It was terrible"
    assert example.prompt + example.candidates[1] == "a fine film . It was great"
    assert example.answer == 1


def test_sst2_masked_is_the_papers() -> None:
    example = TASKS["sst2"].masked(row({"sentence": " a fine film . ", "label": 0}))
    assert example.prompt.replace(MASK, "<mask>") == "a fine film . It was <mask>."
    assert (example.candidates, example.answer) == ((" terrible", " great"), 0)
    assert example.text == "a fine film ."


def test_sst2_on_its_own_rows() -> None:
    path = shared("tasks/sst2/train.jsonl")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            raw = Row(json.loads(line), str(path), number, is_line=True)
            for example in (TASKS["sst2"].causal(raw), TASKS["sst2"].masked(raw)):
                assert example.text == raw.fields["sentence"].strip()
                assert example.candidates[example.answer] == (" terrible", " great")[raw.fields["label"]]


def test_prompt_completion_takes_both_as_written() -> None:
    example = TASKS["prompt-completion"].causal(row({"prompt": "  Q\n", "completion": "A "}))
    assert (example.prompt, example.candidates, example.answer) == ("  Q\n", ("A ",), 0)


def test_prompt_completion_cannot_be_masked() -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: .* masked .* choose a causal model"):
        TASKS["prompt-completion"].masked(row(ROW["prompt-completion"]))


def test_an_empty_completion_is_an_error() -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: expected some text in field 'completion'"):
        TASKS["prompt-completion"].causal(row({"prompt": "Q", "completion": ""}))


@pytest.mark.parametrize("name", TASKS)
def test_a_missing_field_is_named_with_those_found(name: str) -> None:
    task = TASKS[name]
    for field in task.fields:
        fields = {k: v for k, v in ROW[name].items() if k != field} | {"idx": 4}
        with pytest.raises(
            MezoError, match=rf"^data.jsonl:3: expected a field '{field}', found fields .*'idx'"
        ):
            task.causal(row(fields))


@pytest.mark.parametrize("label", [2, -1, "1", 1.0, None, [1]])
def test_an_unknown_label_is_named_with_the_choices(label: object) -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: .*'label'.* 0 \(terrible\), 1 \(great\); found "):
        TASKS["sst2"].causal(row({"sentence": "fine", "label": label}))


@pytest.mark.parametrize(
    ("text", "found"), [(None, r"None \(NoneType\)"), (5, r"5 \(int\)"), ("x" * 99, None)]
)
def test_text_must_be_text(text: object, found: str | None) -> None:
    fields = {"sentence": text, "label": 0}
    if found is None:
        assert TASKS["sst2"].causal(row(fields)).text == text
    else:
        with pytest.raises(
            MezoError, match=rf"^data.jsonl:3: expected text in field 'sentence', found {found}"
        ):
            TASKS["sst2"].causal(row(fields))


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: field 'sentence' .* surrogate"):
        TASKS["sst2"].causal(row({"sentence": json.loads(r'"\ud83d"'), "label": 0}))


def test_places() -> None:
    assert Row({}, "a.jsonl", 7, is_line=True).where == "a.jsonl:7"
    assert Row({}, "data", 7).where == "data[7]"


@pytest.mark.parametrize("name", TASKS)
def test_what_every_task_promises(name: str) -> None:
    task = TASKS[name]
    raw = row(ROW[name])
    example = task.causal(raw)
    assert task.name == name
    assert 0 <= example.answer < len(example.candidates)
    assert task.has_candidates == (len(example.candidates) > 1)
    assert MASK not in example.prompt
    if task.label_words:
        assert task.label(raw) in range(len(task.label_words))
    else:
        assert task.label(raw) is None


def test_homes() -> None:
    assert TASKS["sst2"].home == HubDataset("stanfordnlp/sst2")
    assert TASKS["prompt-completion"].home is None
