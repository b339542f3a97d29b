"""Batches of rows with shared prefixes: demonstrations before every prompt, candidates after a passage.

Prompts are those of the paper's Table 14, except that "Yes" and "No" are spelled out, so that a candidate
has more than one token. Without data the rows are random tokens of the typical lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.text import DEMO, sentences
from mezo.data.sources import load_rows
from mezo.data.tokens import beginning, continuation, token_ids
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.scoring import Example
from mezo.tasks import PromptCompletion
from mezo.util.registry import look_up

Tokens = tuple[int, ...]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One example as text: the passage, which may be long, the question, and the answers."""

    passage: str
    asked: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The sizes of random rows: of passages, questions and candidates."""

    passage: int  # tokens
    asked: int
    candidates: int  # of one example
    candidate: int  # tokens of each
    alike: int = 1  # examples of a batch on the same passage


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of batch. `batch_size` bounds the time of one pass without sharing."""

    about: str
    question: Callable[[Fields], Question] | None  # None: made of demonstrations
    lengths: Lengths
    batch_size: int
    passage_field: str = ""


_YES_NO = ("Yes, it is.", "No, it is not.")


def _boolq(row: Fields) -> Question:
    return Question(row["passage"], f" {row['question']}?\n", _YES_NO)


def _multirc(row: Fields) -> Question:
    asked = f'\nQuestion: {row["question"]}\nI found this answer "{row["answer"]}". Is that correct?'
    return Question(row["paragraph"], asked + " Yes or No?\n", _YES_NO)


def _record(row: Fields) -> Question:
    candidates = tuple(row["query"].replace("@placeholder", name) for name in row["entities"])
    return Question(row["passage"].replace("\n@highlight\n", "\n- "), "\n- ", candidates)


def _copa(row: Fields) -> Question:
    link = {"cause": " because", "effect": " so"}[row["question"]]
    choices = (row["choice1"], row["choice2"])
    return Question("", row["premise"].rstrip(". ") + link, tuple(f" {c[0].lower()}{c[1:]}" for c in choices))


WORKLOADS: dict[str, Workload] = {
    "icl": Workload("16 demonstrations before every prompt", None, Lengths(600, 30, 2, 1, alike=16), 16),
    "boolq": Workload(
        "two answers behind one passage", _boolq, Lengths(150, 10, 2, 4), 8, passage_field="passage"
    ),
    "multirc": Workload(
        "several questions and answers on one passage",
        _multirc,
        Lengths(350, 35, 2, 4, alike=2),
        16,
        passage_field="paragraph",
    ),
    "record": Workload(
        "entities put into a sentence behind one passage",
        _record,
        Lengths(250, 3, 10, 30),
        2,
        passage_field="passage",
    ),
    "copa": Workload("two endings of one short sentence", _copa, Lengths(0, 10, 2, 8), 16),
}


def examples_for(
    name: str, loaded: LoadedModel, *, data: str | None, batch_size: int | None, max_length: int, seed: int
) -> tuple[list[Example], str]:
    """The batch of a workload, and a description of it.

    data: a folder that holds boolq/, multirc/, record/, copa/ and sst2/ with JSON Lines in them; what
    it lacks is random rows of typical lengths (icl: the packaged reviews). Raises MezoError for an
    unknown workload, or rows without the fields of the task.
    """
    workload = look_up(WORKLOADS, name, "workload")
    size = workload.batch_size if batch_size is None else batch_size
    folder = Path(data).expanduser() / ("sst2" if workload.question is None else name) if data else None
    if folder is not None and not folder.is_dir():
        folder = None
    if loaded.tokenizer is not None and workload.question is None:
        made = demonstrated(loaded, str(folder) if folder else None, size, seed)
        return made, f"{size} of {folder.name if folder else DEMO}"
    if loaded.tokenizer is None or workload.question is None or folder is None:
        made = random_rows(workload.lengths, size, loaded.model.config.vocab_size, seed)
        return made, f"{size} of random tokens"
    rows = load_rows(folder, PromptCompletion(), "train")
    try:
        questions = _together([row.fields for row in rows], workload, size)
    except KeyError as error:
        raise MezoError(f"{folder}: expected the fields of {name}, found no {error.args[0]!r}") from None
    return [_tokens(q, loaded.tokenizer, max_length) for q in questions], f"{size} of {name}"


def demonstrated(
    loaded: LoadedModel, data: str | None, size: int, seed: int, shots: int = 16
) -> list[Example]:
    """SST-2 examples behind the same `shots` solved ones (Brown et al. 2020, in-context learning).

    Of five for every two, the longer ones are shown: some 600 tokens together.
    """
    drawn = 5 * shots // 2
    chosen = sentences(loaded, data).batch(0, drawn + size, seed)
    shown = sorted(chosen[:drawn], key=lambda example: len(example.prompt))[drawn - shots :]
    shared: Tokens = beginning(loaded.tokenizer)
    gap = tuple(continuation(loaded.tokenizer, "\n\n"))
    first = len(shared)
    for example in shown:
        shared += example.prompt[first:] + example.candidates[example.answer] + gap
    return [replace(example, prompt=shared + example.prompt[first:]) for example in chosen[drawn:]]


def random_rows(lengths: Lengths, size: int, vocabulary: int, seed: int) -> list[Example]:
    generator = np.random.default_rng(seed)

    def draw(count: int) -> Tokens:
        return tuple(generator.integers(5, vocabulary, count).tolist())

    made: list[Example] = []
    while len(made) < size:
        passage = draw(lengths.passage)
        for _ in range(min(lengths.alike, size - len(made))):
            candidates = tuple(draw(lengths.candidate) for _ in range(lengths.candidates))
            made.append(Example(passage + draw(lengths.asked), candidates, 0))
    return made


def distinct_tokens(rows: Sequence[Tokens]) -> int:
    """The number of distinct prefixes: the tokens to compute if rows share all that they can."""
    total, before = 0, ()
    for row in sorted(rows):
        same = next((i for i, (a, b) in enumerate(zip(row, before, strict=False)) if a != b), None)
        total += len(row) - (min(len(row), len(before)) if same is None else same)
        before = row
    return total


def _together(rows: Sequence[Fields], workload: Workload, size: int) -> list[Question]:
    """The first `size` questions; those on the same passage are neighbours."""
    assert workload.question is not None
    order: dict[str, list[Fields]] = {}
    for number, row in enumerate(rows):
        key = row[workload.passage_field] if workload.passage_field else str(number)
        order.setdefault(key, []).append(row)
    sorted_rows = [row for alike in order.values() for row in alike][:size]
    return [workload.question(row) for row in sorted_rows]


def _tokens(question: Question, tokenizer: Any, max_length: int) -> Example:
    """Passage and question tokenised apart, so that every question finds the passage's own tokens before it.

    A passage that is too long loses its end.
    """
    first = beginning(tokenizer)
    passage, asked = token_ids(tokenizer, [question.passage, question.asked], special=False)
    candidates = [tuple(continuation(tokenizer, c)) for c in question.candidates]
    room = max_length - len(first) - len(asked) - max(map(len, candidates))
    return Example(first + tuple(passage[: max(0, room)]) + tuple(asked), tuple(candidates), 0)
