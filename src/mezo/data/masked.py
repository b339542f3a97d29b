"""Prompts with a mask and the words for its place, for masked language models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mezo.data.tokens import beginning, continuation, token_ids
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks import MASK, TextExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_masked(
    texts: Sequence[TextExample],
    places: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    end: tuple[int, ...] = (),
) -> list[Example]:
    """One mask a prompt, and one token a candidate. The end of `text` is cut where it is too long.

    A single candidate of several tokens has as many masks. end: not used; a mask says where an answer ends.
    """
    if tokenizer.mask_token is None:
        raise MezoError(
            f"expected a tokenizer with a mask token, found none in {type(tokenizer).__name__}; "
            "choose a masked language model such as roberta-large, or another model kind"
        )
    words = {
        word: (_label_token(tokenizer, word),)
        for t in texts
        for word in t.candidates
        if len(t.candidates) > 1
    }
    words |= {
        text.candidates[0]: _answer_tokens(tokenizer, text.candidates[0], where)
        for text, where in zip(texts, places, strict=True)
        if len(text.candidates) == 1
    }
    prompts = _with_special(tokenizer, [t.prompt for t in texts])
    examples = []
    for text, where, prompt in zip(texts, places, prompts, strict=True):
        candidates = tuple(words[c] for c in text.candidates)
        more = len(candidates[0]) - 1  # masks beyond the first
        if len(prompt) > max_length - more:
            text, prompt = _cut(text, where, tokenizer, max_length - more)
        position = _mask_position(text, where, prompt, tokenizer)
        prompt = prompt[:position] + [prompt[position]] * (1 + more) + prompt[position + 1 :]
        examples.append(
            Example(
                tuple(prompt),
                candidates,
                text.answer,
                position,
                references=text.references,
                answers=text.answers,
                group=text.group,
            )
        )
    return examples


def _with_mask(prompt: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    return prompt.replace(MASK, str(tokenizer.mask_token))


def _with_special(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt with the tokenizer's own around them: those before it once, if it has them too."""
    first = list(beginning(tokenizer))
    found = token_ids(tokenizer, [_with_mask(prompt, tokenizer) for prompt in prompts], special=True)
    return [ids[len(first) :] if first and ids[: 2 * len(first)] == first * 2 else ids for ids in found]


def _label_token(tokenizer: "PreTrainedTokenizerBase", word: str) -> int:
    ids = continuation(tokenizer, word)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        pieces = ", ".join(repr(p) for p in tokenizer.convert_ids_to_tokens(ids)) or "none"
        raise MezoError(
            f"expected a label word that is one token of this tokenizer, found {word!r}, which is {len(ids)}: {pieces}; "
            "choose another word, or a causal model"
        )
    return ids[0]


def _answer_tokens(tokenizer: "PreTrainedTokenizerBase", answer: str, where: str) -> tuple[int, ...]:
    tokens = tuple(continuation(tokenizer, answer))
    if not tokens:
        raise MezoError(
            f"{where}: expected an answer with at least one token, found {answer!r}, which has none"
        )
    return tokens


def _cut(
    text: TextExample, where: str, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[TextExample, list[int]]:
    """The longest beginning of `text.text`, to a character, that leaves the prompt short enough."""

    def attempt(length: int) -> tuple[TextExample, list[int]]:
        cut = replace(text, text=text.text[:length].rstrip())
        return cut, _with_special(tokenizer, [cut.prompt])[0]

    fits, too_long = 0, len(text.text)
    best = attempt(fits)
    if len(best[1]) > max_length:
        raise MezoError(
            f"{where}: the template alone has {len(best[1])} tokens, more than max_length={max_length}; raise max_length"
        )
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        candidate = attempt(middle)
        if len(candidate[1]) <= max_length:
            fits, best = middle, candidate
        else:
            too_long = middle
    return best


def _mask_position(
    text: TextExample, where: str, prompt: list[int], tokenizer: "PreTrainedTokenizerBase"
) -> int:
    """Where the template's mask is; the text itself may spell the mask token, too."""
    before = text.prompt.partition(MASK)[0].count(str(tokenizer.mask_token))
    masks = [i for i, token in enumerate(prompt) if token == tokenizer.mask_token_id]
    if len(masks) <= before:
        raise MezoError(
            f"{where}: expected a mask token in the prompt, found {len(masks)}; is the template at fault?"
        )
    return masks[before]
