"""What is asked of a tokenizer."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# After either of these, a tokenizer that puts a word-start mark at the beginning of every text
# (SentencePiece) has put it already, and what follows is tokenised as in the middle of a text.
_ANCHORS = ("\n", "a")


# Stands inside a control token that is written out in the data, which is then tokenised as the text that it is. A Unicode
# noncharacter, as MASK is.
BROKEN = "\ufdd1"


def controls(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str] | None:
    """What finds the tokenizer's control tokens in a text, such as <|im_end|>; None where it has none."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*added, *map(str, tokenizer.all_special_tokens)}, key=len, reverse=True)
    found = "|".join(re.escape(name) for name in names if len(name) > 1)
    return re.compile(found) if found else None


def as_text(value: Any, pattern: re.Pattern[str]) -> Any:
    """The value with the control tokens in its texts broken, so that they are tokenised as text."""
    if isinstance(value, str):
        while pattern.search(value):  # the rest of a broken one may hold another
            value = pattern.sub(lambda found: found[0][0] + BROKEN + found[0][1:], value)
        return value
    if isinstance(value, Mapping):
        return {key: as_text(each, pattern) for key, each in value.items()}
    return [as_text(each, pattern) for each in value] if isinstance(value, list | tuple) else value


def token_ids(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, special: bool
) -> list[list[int]]:
    """The tokens of each text, with or without those the tokenizer adds around it."""
    if not texts:
        return []
    if not any(BROKEN in text for text in texts):
        return _tokenised(tokenizer, texts, special=special)
    return [
        _in_pieces(tokenizer, text, special)
        if BROKEN in text
        else _tokenised(tokenizer, [text], special=special)[0]
        for text in texts
    ]


def _in_pieces(tokenizer: "PreTrainedTokenizerBase", text: str, special: bool) -> list[int]:
    first, *others = text.split(BROKEN)
    ids = _tokenised(tokenizer, [first], special=False)[0]
    for piece in others:
        ids += continuation(tokenizer, piece)
    return [*beginning(tokenizer), *ids, *_ending(tokenizer)] if special else ids


def _tokenised(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, special: bool
) -> list[list[int]]:
    encoded = tokenizer(
        list(texts),
        add_special_tokens=special,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # it warns of texts longer than the model's context, which are cut later
    )
    return [list(ids) for ids in encoded["input_ids"]]


def beginning(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """The tokens that the tokenizer puts before every text, such as <s>; often none."""
    (bare,) = token_ids(tokenizer, ["a"], special=False)
    (full,) = token_ids(tokenizer, ["a"], special=True)
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return tuple(full[:start])


def _ending(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    (bare,) = token_ids(tokenizer, ["a"], special=False)
    (full,) = token_ids(tokenizer, ["a"], special=True)
    return tuple(full[len(beginning(tokenizer)) + len(bare) :])


def continuation(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The tokens of `text` where it continues another text."""
    for anchor in _ANCHORS:
        before, both = token_ids(tokenizer, [anchor, anchor + text], special=False)
        if both[: len(before)] == before:
            return both[len(before) :]
    return token_ids(tokenizer, [text], special=False)[0]
