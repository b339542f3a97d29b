"""Two answers to one conversation through a chat template: the chosen one, and the rejected one."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mezo.data.chat import shorter, turn_tokens
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_pair(
    talk: Conversation,
    where: str,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    *,
    end: tuple[int, ...],
) -> Example:
    """The conversation before the last message as the prompt, and the two last messages as candidates, the first right.

    The earliest exchanges of a conversation that is too long are dropped, but not its system prompt, and then the ends of
    the answers. Raises MezoError, which names the row, as `encode_chat` does.
    """
    assert talk.rejected is not None
    others = replace(talk, messages=(*talk.messages[:-1], talk.rejected))
    for chosen, rejected in zip(shorter(talk, "last"), shorter(others, "last"), strict=True):
        found = [turn_tokens(each, where, tokenizer, "last", end) for each in (chosen, rejected)]
        if all(len(ids) <= max_length for ids, _ in found):
            break
    prompts = {tuple(ids[: spans[0][0]]) for ids, spans in found}
    if len(prompts) != 1:
        raise MezoError(
            f"{where}: this model's chat template writes what is before the chosen and the rejected answer in two ways, so "
            "that they cannot be compared: choose another --chat-template"
        )
    (prompt,) = prompts
    if len(prompt) >= max_length:
        raise MezoError(
            f"{where}: the conversation before its answers has {len(prompt)} tokens, and max_length is {max_length}: raise "
            "max_length"
        )
    answers = tuple(tuple(ids[len(prompt) : max_length]) for ids, _ in found)
    return Example(prompt, answers, 0, references=(str(talk.messages[-1]["content"]).strip(),))
