"""In-context learning: examples with their right answers in front of every prompt.

The paper's ICL baseline (MeZO, section 3.2) shows 32 demonstrations drawn at random and cuts a prompt
that is too long from the left, wherever that falls. Here the draw takes the classes in turn, so that a
few demonstrations hold all of them, and only whole demonstrations are left out.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mezo.data.causal import encode_causal
from mezo.data.dataset import MeZODataset
from mezo.data.encoded import EncodedDataset
from mezo.data.encoding import Kind
from mezo.data.prefill import opened
from mezo.data.sampling import permutation
from mezo.data.tokens import token_ids
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks import TextExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"  # between demonstrations, and before the prompt, as in the published code
_UNLIMITED = sys.maxsize


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """Examples behind demonstrations, and how many of these each one has."""

    examples: EncodedDataset
    fitted: tuple[int, ...]  # one an example

    @property
    def mean(self) -> float:
        """Demonstrations before a prompt, on average."""
        return sum(self.fitted) / len(self.fitted)

    def describe(self, shots: int) -> str:
        """One line: how many demonstrations fitted."""
        fewest = min(self.fitted)
        if fewest == shots:
            return f"{shots} demonstrations before every prompt"
        whole = sum(n == shots for n in self.fitted)
        return (
            f"all {shots} demonstrations fit before {whole} of {len(self.fitted)} prompts; the others have"
            f" as many as fit, the fewest {fewest} (raise max_length, if the model's context allows it)"
        )


def draw(train: MeZODataset, shots: int, seed: int) -> list[str]:
    """`shots` examples of `train` as text with their right answers, in the order in which they are shown.

    The classes take turns in a random order by `seed`, so any beginning of the list is balanced; a
    task without classes is drawn from at random. Fewer shots are a beginning of more.

    Raises MezoError if there are fewer examples than that.
    """
    if not 1 <= shots <= len(train):
        raise MezoError(
            f"expected a number of shots from 1 to {len(train)}, the examples of split {train.split!r},"
            f" found {shots}"
        )
    of_class: dict[int | None, list[int]] = {}
    for index in permutation(len(train), "demonstrations", seed).tolist():
        of_class.setdefault(train.task.label(train.rows[index]), []).append(index)
    rounds = max(map(len, of_class.values()))
    turns = [group[n] for n in range(rounds) for group in of_class.values() if n < len(group)]
    return [_solved(train.task.causal(train.rows[index])) for index in turns[:shots]]


def _solved(text: TextExample) -> str:
    return (text.prompt + text.candidates[text.answer]).strip()


def demonstrate(
    dataset: MeZODataset,
    demonstrations: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    kind: Kind,
    max_length: int,
) -> Demonstrated:
    """Tokenise `dataset` with as many of the demonstrations before each prompt as fit in `max_length` tokens.

    Left out are those nearest to the prompt, so all prompts begin alike and an engine computes what
    they share once. An example that does not fit alone is cut as without demonstrations.

    Raises MezoError for a masked model, whose prompts have no place for demonstrations.
    """
    if kind != "causal":
        raise MezoError(
            "demonstrations go before a prompt that a causal model continues, found a masked language model:"
            " use a causal one, or --shots 0"
        )
    texts = [dataset.task.causal(row) for row in dataset.rows]
    places = [row.where for row in dataset.rows]
    pending = _by_estimate(texts, places, demonstrations, tokenizer, max_length)
    found: dict[int, tuple[Example, int]] = {}
    for shown in range(len(demonstrations), -1, -1):
        members = pending.pop(shown, [])
        if not members:
            continue
        head = "".join(text + SEPARATOR for text in demonstrations[:shown])
        examples = encode_causal(
            [replace(texts[i], head=head + texts[i].head) for i in members],
            [places[i] for i in members],
            tokenizer,
            _UNLIMITED if shown else max_length,
        )
        for i, encoded in zip(members, examples, strict=True):
            example = replace(encoded, fields=dataset.rows[i].fields)
            if shown == 0 or _length(example) <= max_length:
                found[i] = example, shown
            else:
                pending.setdefault(shown - 1, []).append(i)
    ordered = [found[i] for i in range(len(texts))]
    examples = opened([e for e, _ in ordered], dataset.rows, dataset.task, tokenizer)
    return Demonstrated(EncodedDataset(tuple(examples)), tuple(n for _, n in ordered))


def _by_estimate(
    texts: Sequence[TextExample],
    places: Sequence[str],
    demonstrations: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> dict[int, list[int]]:
    """Examples by the number of demonstrations that fit if texts that are joined keep their tokens.

    They may not, by a token or two at a border, so what is found here is tried out afterwards.
    """
    separated = [text + SEPARATOR for text in demonstrations]
    costs = [len(t) for t in token_ids(tokenizer, separated, special=False)] if separated else []
    fitting: dict[int, list[int]] = {}
    for i, example in enumerate(encode_causal(texts, places, tokenizer, _UNLIMITED)):
        room, shown = max_length - _length(example), 0
        while shown < len(costs) and costs[shown] <= room:
            room -= costs[shown]
            shown += 1
        fitting.setdefault(shown, []).append(i)
    return fitting


def _length(example: Example) -> int:
    return len(example.prompt) + max(map(len, example.candidates), default=0)
