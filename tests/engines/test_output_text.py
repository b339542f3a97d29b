"""Tokens of outputs as text: whatever an engine has written beyond the end is not part of them."""

from typing import Any

import pytest
from tests.toys import byte_tokenizer
from tokenizers import AddedToken
from transformers import GenerationConfig

from mezo.engines.output_text import OutputText
from mezo.util.writing import Writing


def tokens(text: str) -> list[int]:
    return [4 + b for b in text.encode()]


@pytest.mark.parametrize(
    ("text", "stop", "output"),
    [
        (" a b ", (), " a b "),
        ("one;two", (";",), "one"),
        ("abc", ("abc", "b"), "a"),  # b is whole before abc is, although abc begins before it
        ("abcd", ("abcd", "bc", "d"), "a"),
        ("caf\u00e9", ("\n",), "caf\u00e9"),
        ("a|b", ("|", "a|b"), "a"),
    ],
)
def test_an_output_ends_with_the_token_that_completes_a_stop_string(
    text: str, stop: tuple[str, ...], output: str
) -> None:
    assert OutputText(byte_tokenizer()).output(tokens(text), Writing(9, stop)) == output


def test_several_stop_strings_in_one_token_the_first_ends_it() -> None:
    tokenizer = byte_tokenizer(words=(" great",))
    great: Any = tokenizer.convert_tokens_to_ids("\u0120great")
    made = OutputText(tokenizer)
    assert made.output([*tokens("x"), great, *tokens("y")], Writing(9, ("eat", " gr", "y"))) == "x"


def test_end_tokens_and_control_tokens_end_as_tokens() -> None:
    """Also one that is only marked as a control token, and has no role."""
    tokenizer: Any = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True)], special_tokens=False)
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    assert tokenizer.decode([turn], skip_special_tokens=True) == ""
    made = OutputText(tokenizer, GenerationConfig(eos_token_id=[2, 9]))
    assert made.ends == [2, 9]
    row = [*tokens("a"), turn, *tokens("b"), 9, *tokens("c")]
    assert made.output(row, Writing(9, ("\n",))) == "ab"
    assert made.output(row, Writing(9, ("<|turn|>",))) == "a"
    assert made.ends_of(Writing(9, ("<|turn|>", "<mask>"))) == sorted([2, 9, turn, 3])
