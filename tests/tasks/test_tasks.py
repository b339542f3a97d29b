"""Tasks: the paper's templates, and complaints that say where to look."""

import json
from collections.abc import Mapping

import pytest
from tests.shared import shared

from mezo.errors import MezoError
from mezo.metrics import METRICS
from mezo.tasks import MASK, TASKS, HubDataset, Row, Task, TextExample, placed
from mezo.tasks.chat import Chat
from mezo.tasks.conversation import Conversation

MASKED = {
    *("sst2", "sst5", "snli", "mnli", "rte", "trec", "cb", "boolq", "demo"),
    "labelled",
    "prompt-completion",
}


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


def test_prompt_completion_has_its_mask_after_the_prompt() -> None:
    example = TASKS["prompt-completion"].masked(row({"prompt": "Q", "completion": "A"}))
    assert (example.prompt, example.candidates) == (f"Q {MASK}", ("A",))


def test_an_empty_completion_is_an_error() -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: expected some text in field 'completion'"):
        TASKS["prompt-completion"].causal(row({"prompt": "Q", "completion": ""}))


@pytest.mark.parametrize("name", TASKS)
def test_a_missing_field_is_named_with_those_found(name: str) -> None:
    task = TASKS[name]
    for field in task.fields:
        fields = {k: v for k, v in task.samples[0].items() if k != field} | {"idx": 4}
        with pytest.raises(
            MezoError, match=rf"^data.jsonl:3: expected a field '{field}', found fields .*'idx'"
        ):
            posed(task, row(fields))


@pytest.mark.parametrize("label", [2, -1, "2", 1.0, None, [1], True])
def test_an_unknown_label_is_named_with_the_choices(label: object) -> None:
    with pytest.raises(MezoError, match=r"^data.jsonl:3: .*'label'.* 0 \(negative\), 1 \(positive\); found "):
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
    assert task.name == name
    assert len(task.samples) == 2
    task = task.fitted([row(fields) for fields in task.samples])
    assert set(task.metrics) <= set(METRICS)
    for fields in task.samples:
        promised(task, row(fields))


def posed(task: Task, raw: Row) -> TextExample | Conversation:
    """What a model is asked: a conversation, where the task has nothing else."""
    if isinstance(task, Chat):
        found = task.conversation(raw)
        assert found is not None
        return found
    return task.causal(raw)


def promised(task: Task, raw: Row) -> None:
    example = posed(task, raw)
    if isinstance(example, Conversation):
        assert example.learned("last")
        return
    assert 0 <= example.answer < len(example.candidates)
    assert task.has_candidates == (len(example.candidates) > 1)
    assert MASK not in example.prompt
    if task.classes:
        assert task.label(raw) in range(len(task.classes))
        assert len(task.label_words) in (0, len(task.classes))
    else:
        assert task.label(raw) is None
    assert task.skips(raw) is None
    assert list(task.unfold(raw.fields)) == [raw.fields]
    if task.has_candidates:
        assert len(set(example.candidates)) == len(example.candidates)
    else:
        whole = example.candidates[0].strip()
        assert list(example.references[:1]) in ([], [whole], [whole.rpartition("#### ")[2]])
    if task.name not in MASKED:
        with pytest.raises(MezoError, match="which a masked language model cannot"):
            task.masked(raw)
        return
    masked = task.masked(raw)
    assert masked.prompt.count(MASK) == 1
    assert (masked.answer, masked.candidates) == (example.answer, task.label_words or example.candidates)


def test_homes() -> None:
    assert TASKS["prompt-completion"].home is None
    ids = {task.home.id for task in TASKS.values() if isinstance(task.home, HubDataset)}
    assert ids == {
        "stanfordnlp/sst2",
        "SetFit/sst5",
        "stanfordnlp/snli",
        "nyu-mll/multi_nli",
        "aps/super_glue",
        "CogComp/trec",
        "rajpurkar/squad",
        "ucinlp/drop",
        "openai/gsm8k",
    }


def test_a_words_place_is_after_one_white_space() -> None:
    assert placed((" Yes", "No"), "true?") == (" Yes", " No")
    assert placed((" Yes", "No"), "true?\n") == placed(("Yes", " No"), "true? ") == ("Yes", "No")
