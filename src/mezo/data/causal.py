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
    texts: Sequence[TextExample], places: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> list[Example]:
    """Prompt + candidate has the tokens of the two texts joined, wherever the prompt's own tokens allow.

    A prompt that is too long with its longest candidate loses its beginning, but not the tokens
    that the tokenizer puts before every text.
    """
    first = beginning(tokenizer)
    prompts = token_ids(tokenizer, [t.prompt for t in texts], special=False)
    joined = iter(token_ids(tokenizer, [t.prompt + c for t in texts for c in t.candidates], special=False))
    examples = []
    for text, where, prompt in zip(texts, places, prompts, strict=True):
        wholes = [next(joined) for _ in text.candidates]
        endings = _endings(prompt, wholes)
        if endings is None:
            prompt, endings = _apart(tokenizer, text, prompt, wholes)
        examples.append(_fitted(first, prompt, endings, text, where, max_length))
    return examples


def _endings(prompt: list[int], wholes: Sequence[list[int]]) -> list[list[int]] | None:
    """What follows the prompt in each whole; None where the prompt's last token changed on joining."""
    if all(whole[: len(prompt)] == prompt and len(whole) > len(prompt) for whole in wholes):
        return [whole[len(prompt) :] for whole in wholes]
    return None


def _apart(
    tokenizer: "PreTrainedTokenizerBase", text: TextExample, prompt: list[int], wholes: Sequence[list[int]]
) -> tuple[list[int], list[list[int]]]:
    """Prompt and candidates whose border is no border between tokens.

    Most often the prompt ends in a space that belongs to the candidate's first token ("Answer: " +
    "yes"): the space goes over to the candidates. Else they are tokenised apart.
    """
    (shorter,) = token_ids(tokenizer, [text.prompt.rstrip()], special=False)
    endings = _endings(shorter, wholes)
    if shorter and endings is not None:
        return shorter, endings
    return prompt, [continuation(tokenizer, c) for c in text.candidates]


def _fitted(
    first: tuple[int, ...],
    prompt: list[int],
    candidates: list[list[int]],
    text: TextExample,
    where: str,
    max_length: int,
) -> Example:
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
    longest = max(map(len, candidates))
    room = max_length - len(first) - longest
    if room < (0 if first else 1):
        raise MezoError(
            f"{where}: a candidate of {longest} tokens leaves no room for a prompt in max_length={max_length}; "
            "raise max_length, or shorten it"
        )
    kept = prompt[max(0, len(prompt) - room) :]
    return Example(first + tuple(kept), tuple(map(tuple, candidates)), text.answer)
