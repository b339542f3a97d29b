"""What is asked of a tokenizer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# After either of these, a tokenizer that puts a word-start mark at the beginning of every text
# (SentencePiece) has put it already, and what follows is tokenised as in the middle of a text.
_ANCHORS = ("\n", "a")


def token_ids(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, special: bool
) -> list[list[int]]:
    """The tokens of each text, with or without those the tokenizer adds around it."""
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


def continuation(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The tokens of `text` where it continues another text."""
    for anchor in _ANCHORS:
        before, both = token_ids(tokenizer, [anchor, anchor + text], special=False)
        if both[: len(before)] == before:
            return both[len(before) :]
    return token_ids(tokenizer, [text], special=False)[0]
