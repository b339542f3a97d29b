"""Tokens of outputs as text, and where an output ends: the same on every engine.

Programs differ in what they make of tokens: of pieces of a character, of control tokens, of several stop strings in one
token. So an engine gives tokens, and their text is made here.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from mezo.util.writing import Writing

Tokens = Sequence[int]


class OutputText:
    """Of a tokenizer, with the end tokens of it and of a generation config."""

    def __init__(self, tokenizer: Any, generation_config: Any = None):
        self.tokenizer = tokenizer
        ends = [getattr(generation_config, "eos_token_id", None), tokenizer.eos_token_id]
        flat = [e for end in ends if end is not None for e in (end if isinstance(end, list) else [end])]
        self.ends = sorted(set(flat))
        # those that have a role, and those that are only marked as such, as Llama 3's <|eot_id|> is
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        self._controls = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}

    def ends_of(self, writing: Writing) -> list[int]:
        """The end tokens; with them, stop strings that are control tokens, which are in no text."""
        controls = set(writing.stop) & self._controls
        return sorted({*self.ends, *self.tokenizer.convert_tokens_to_ids(sorted(controls))})

    def text(self, tokens: Tokens, writing: Writing) -> str:
        """The tokens up to an end token, as text."""
        ends = self.ends_of(writing)
        end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return self.decoded(tokens[:end])

    def output(self, tokens: Tokens, writing: Writing) -> str:
        """What these tokens are as an output: it ends with the first token that completes a stop string."""
        text = self.text(tokens, writing)
        if writing.is_over(text):
            places = range(len(tokens) + 1)
            over = bisect_left(places, True, key=lambda n: writing.is_over(self.text(tokens[:n], writing)))
            text = self.text(tokens[:over], writing)
        return writing.cut(text)

    def decoded(self, tokens: Tokens) -> str:
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
