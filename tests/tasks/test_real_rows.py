"""Every row of the real data, in every form its task has: nothing is lost on the way to tokens."""

from pathlib import Path
from typing import Any

import pytest
from tests.shared import shared
from tests.toys import byte_tokenizer

from mezo.data import MeZODataset
from mezo.tasks import MASK, TASKS, HubDataset, Task

PAPER = [name for name, task in TASKS.items() if isinstance(task.home, HubDataset)]
LENGTH = 1024  # bytes: shorter than many passages, longer than any question
TOKENIZER = byte_tokenizer()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", PAPER)
def test_every_row_is_encoded_and_its_answer_found_again(name: str, split: str) -> None:
    folder: Path = shared(f"tasks/{name}/{split}.jsonl").parent
    dataset = MeZODataset(folder, task=name, split=split)
    for row, example in zip(dataset.rows, dataset.encode(TOKENIZER, "causal", LENGTH), strict=True):
        text = dataset.task.causal(row)
        assert len(example.prompt) + max(map(len, example.candidates)) <= LENGTH
        prompt = decoded(example.prompt[1:])
        assert prompt.startswith(text.head)
        assert prompt.endswith(text.tail)
        right = {decoded(example.candidates[i]) for i in example.right}
        assert right == {text.candidates[i] for i in text.answers or (text.answer,)}
        assert right == answers(dataset.task, row.fields)
        assert example.fields is row.fields


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PAPER if type(TASKS[n]).masked is not Task.masked])
def test_every_row_has_its_masked_form(name: str) -> None:
    folder: Path = shared(f"tasks/{name}/train.jsonl").parent
    words = byte_tokenizer(words=tuple(" " + word.strip() for word in TASKS[name].label_words))
    dataset = MeZODataset(folder, task=name)
    for row, example in zip(dataset.rows, dataset.encode(words, "masked", LENGTH), strict=True):
        assert example.mask_position is not None
        assert example.prompt[example.mask_position] == words.mask_token_id
        assert dataset.task.masked(row).prompt.count(MASK) == 1
        assert example.answer == dataset.task.causal(row).answer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnli", "rte", "snli", "sst2", "sst5", "trec"])
def test_the_large_pools_give_512_a_class(name: str, recwarn: pytest.WarningsRecorder) -> None:
    path = shared(f"tasks/pools/{name}.jsonl.gz")
    dataset = MeZODataset(path, task=name, shots_per_class=512)
    words = TASKS[name].label_words
    counts = [0] * len(words)
    for row in dataset.rows:
        counts[TASKS[name].label(row) or 0] += 1
    short = {word.strip() for word, count in zip(words, counts, strict=True) if count < 512}
    assert len(recwarn) == bool(short)
    assert all(word in str(recwarn[0].message) for word in short)
    if name == "trec":
        assert short == {"Expression"}


def decoded(tokens: Any) -> str:
    """Bytes to text; a character cut in two at the beginning of a passage does not matter here."""
    return bytes(t - 4 for t in tokens).decode(errors="replace")


def answers(task: Task, fields: Any) -> set[str]:
    """The right candidates, from the fields of a row alone."""
    if task.name == "record":
        return {" " + fields["query"].strip().replace("@placeholder", a) for a in fields["answers"]}
    if task.name == "squad":
        return {f" {fields['answers']['text'][0].strip()}\n"}
    if task.name == "drop":
        return {f" {fields['answers_spans']['spans'][0].strip()}\n"}
    if task.name == "copa":
        choice = fields[f"choice{fields['label'] + 1}"].strip()
        first, _, rest = choice.partition(" ")
        return {f" {first if first == 'I' else first.lower()} {rest}"}
    words = {
        "sst2": [" terrible", " great"],
        "sst5": [" terrible", " bad", " okay", " good", " great"],
        "trec": [" Description", " Entity", " Expression", " Human", " Location", " Number"],
    }
    named = {"entailment": "Yes", "contradiction": "No", "neutral": "Maybe", "not_entailment": "No"}
    label = fields["label"]
    if task.name in words:
        return {words[task.name][label]}
    return {named[label] if isinstance(label, str) else ("Yes" if label else "No")}
