"""Prompts and their continuations, for models that predict the next token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mezo.data.tokens import beginning, continuation, token_ids
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks import TextExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_causal(
    texts: Sequence[TextExample],
    places: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    end: tuple[int, ...] = (),
) -> list[Example]:
    """Prompt + candidate has the tokens of the two texts joined, wherever the prompt's own tokens allow.

    A prompt that begins with the tokenizer's own first token (a chat template has rendered it) gets no second one.
    A prompt that is too long with its longest candidate loses the beginning of its `text`, but not its
    head and tail (the question, the template) nor the tokens that the tokenizer puts before every text.
    end: the tokens that every candidate ends with.
    """
    first = beginning(tokenizer)
    prompts = _own(tokenizer, first, [t.prompt for t in texts])
    joined = iter(_own(tokenizer, first, [t.prompt + c for t in texts for c in t.candidates]))
    examples = []
    for text, where, prompt in zip(texts, places, prompts, strict=True):
        wholes = [next(joined) for _ in text.candidates]
        endings = _endings(prompt, wholes)
        if endings is None:
            prompt, endings = _apart(tokenizer, first, text, prompt, wholes)
        if text.cuts_answer:
            prompt, endings = _given_first(first, prompt, endings)
        _check(first, prompt, endings, text, where)
        endings = [
            ending if end and tuple(ending[-len(end) :]) == end else [*ending, *end] for ending in endings
        ]
        if text.cuts_answer:
            endings = [ending[: max(1, max_length - len(first) - len(prompt))] for ending in endings]
        room = max_length - len(first) - max(map(len, endings), default=0)
        if room < (0 if first else 1):
            raise MezoError(
                f"{where}: a candidate of {max(map(len, endings))} tokens leaves no room for a prompt in "
                f"max_length={max_length}; raise max_length, or shorten it"
            )
        if len(prompt) > room:
            prompt = _cut(prompt, room, first, text, where, tokenizer)
        examples.append(
            Example(
                first + tuple(prompt),
                tuple(map(tuple, endings)),
                text.answer,
                references=text.references,
                answers=text.answers,
                group=text.group,
            )
        )
    return examples


def _own(
    tokenizer: "PreTrainedTokenizerBase", first: tuple[int, ...], texts: Sequence[str]
) -> list[list[int]]:
    """The tokens of each text without those, written out in it, that the tokenizer puts before every text."""
    count = len(first)
    found = token_ids(tokenizer, texts, special=False)
    return [ids[count:] if first and tuple(ids[:count]) == first else ids for ids in found]


def _endings(prompt: list[int], wholes: Sequence[list[int]]) -> list[list[int]] | None:
    """What follows the prompt in each whole; None where the prompt's last token changed on joining."""
    if all(whole[: len(prompt)] == prompt and len(whole) > len(prompt) for whole in wholes):
        return [whole[len(prompt) :] for whole in wholes]
    return None


def _apart(
    tokenizer: "PreTrainedTokenizerBase",
    first: tuple[int, ...],
    text: TextExample,
    prompt: list[int],
    wholes: Sequence[list[int]],
) -> tuple[list[int], list[list[int]]]:
    """Prompt and candidates whose border is no border between tokens.

    Most often the prompt ends in a space that belongs to the candidate's first token ("Answer: " +
    "yes"): the space goes over to the candidates. Else they are tokenised apart.
    """
    (shorter,) = _own(tokenizer, first, [text.prompt.rstrip()])
    endings = _endings(shorter, wholes)
    if shorter and endings is not None:
        return shorter, endings
    return prompt, [continuation(tokenizer, c) for c in text.candidates]


def _given_first(
    first: tuple[int, ...], prompt: list[int], endings: list[list[int]]
) -> tuple[list[int], list[list[int]]]:
    """Of a text without a prompt, the first token as the prompt, where the tokenizer puts none before it."""
    if first or prompt or len(endings[0]) < 2:
        return prompt, endings
    return endings[0][:1], [ending[1:] for ending in endings]


def _check(
    first: tuple[int, ...], prompt: list[int], candidates: list[list[int]], text: TextExample, where: str
) -> None:
    for words, tokens in zip(text.candidates, candidates, strict=True):
        if not tokens:
            raise MezoError(
                f"{where}: expected a candidate with at least one token, found {words!r}, which has none"
            )
    if not first and not prompt:
        raise MezoError(
            f"{where}: expected a prompt, found an empty one, and this tokenizer puts no token before a text: "
            "there is nothing to continue"
        )


def _cut(
    prompt: list[int],
    room: int,
    first: tuple[int, ...],
    text: TextExample,
    where: str,
    tokenizer: "PreTrainedTokenizerBase",
) -> list[int]:
    """The prompt without as many tokens from the beginning of `text.text` as make it fit.

    A token that head or tail shares with the text counts as the text's.
    """
    (head,) = _own(tokenizer, first, [text.head])
    before = _common(prompt, head) if text.head else 0
    tail = continuation(tokenizer, text.tail) if text.tail else []
    after = min(_common(prompt[::-1], tail[::-1]), len(prompt) - before)
    if before + after > room:
        raise MezoError(
            f"{where}: the prompt without what may be cut of it has {before + after} tokens, and only {room} fit "
            "beside the longest candidate; raise max_length"
        )
    return prompt[:before] + prompt[len(prompt) - (room - before) :]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """The number of tokens that both begin with."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
