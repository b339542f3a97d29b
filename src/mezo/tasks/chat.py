"""Conversations, of which the assistant's turns are learned through the model's chat template."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import TextExample
from mezo.tasks.conversation import Conversation, conversation_in, messages_in
from mezo.tasks.free_text import FreeText
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "Which team takes a ticket about an invoice?"},
            {"role": "assistant", "content": "Billing."},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "The login page is blank."},
            {"role": "assistant", "content": "Web."},
            {"role": "user", "content": "And a wrong address?"},
            {"role": "assistant", "content": "Billing."},
        ]
    },
)


_REFERENCE = ("answer", "reference")
_BEGUN = "continue_final_message"


@dataclass(frozen=True, kw_only=True)
class Chat(FreeText):
    """`messages` (OpenAI), `conversations` (ShareGPT), or TRL's `prompt` and `completion` as lists of messages.

    Beside `messages`, `answer` or `reference` (a text, or a list of accepted ones) is what rewards and metrics compare with. It
    is learned as the assistant's turn where the messages end before one. With `continue_final_message`, true, the last message
    is the beginning of the assistant's turn, which the model goes on with where it writes. Rewards that need no answer take
    messages that end with the user's as a prompt. System prompts and tool messages are context. `turns` says which of the assistant's turns are learned.

    Example:
        >>> talk = Chat().conversation(Row(_SAMPLES[1], "samples", 0))
        >>> talk.learned("all"), talk.learned("last")
        ((1, 3), (3,))
    """

    name: str = "chat"
    fields: tuple[str, ...] = ("messages",)
    aliases: tuple[tuple[str, str], ...] = (("conversations", "messages"), ("conversation", "messages"))
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def unfold(self, fields: Mapping[str, Any]) -> tuple[Mapping[str, Any]]:
        if "messages" in fields or "prompt" not in fields:
            return (fields,)
        if fields.get("completion") is None:
            return ({**fields, "messages": fields["prompt"]},)
        rest = {name: value for name, value in fields.items() if name not in ("prompt", "completion")}
        # a message list, for which the border between context and answer is kept
        return ({**rest, "messages": fields["completion"], "before": fields["prompt"]},)

    def conversation(self, row: Row) -> Conversation:
        found = conversation_in(row, "messages")
        if "before" in row.fields:
            before = messages_in(row, "before")
            found = Conversation((*before, *found.messages), found.tools, first_learned=len(before))
        if row.fields.get(_BEGUN):
            found = _begun(found, row)
        if (
            name := next((each for each in _REFERENCE if row.fields.get(each) is not None), None)
        ) is not None:
            found = _with_reference(found, row, name)
        if self.writes and found.messages[-1]["role"] != "assistant":
            return replace(found, first_learned=len(found.messages))  # a prompt without an answer
        if not found.learned(self.turns):
            raise MezoError(
                f"{row.where}: expected a turn of the assistant to learn, or a field answer, found none"
            )
        return found

    def causal(self, row: Row) -> TextExample:
        raise MezoError(
            f"{row.where}: a conversation is written out by a chat template, and this model's tokenizer has none: "
            "give --chat-template chatml (or plain, or a FILE)"
        )


def _begun(talk: Conversation, row: Row) -> Conversation:
    """The conversation before its last message, which is the beginning of an answer. Raises MezoError if it cannot be."""
    *before, last = talk.messages
    if row.fields[_BEGUN] is not True or last["role"] != "assistant" or not last["content"] or not before:
        raise MezoError(
            f"{row.where}: expected {_BEGUN} to be true, and the last message the beginning of the assistant's, with some text "
            f"and another message before it; found {row.fields[_BEGUN]!r:.40} and a message of {last['role']!r}"
        )
    first = min(talk.first_learned, len(before))
    return replace(talk, messages=tuple(before), begun=last["content"], first_learned=first)


def _with_reference(talk: Conversation, row: Row, name: str) -> Conversation:
    value, asks = row.fields[name], talk.messages[-1]["role"] != "assistant"
    if isinstance(value, int | float) and not isinstance(value, bool):
        row = Row({name: str(value)}, row.source, row.number, row.is_line)
    elif not asks and not isinstance(value, str | list):
        return talk  # of some other meaning
    answers = tuple(text.strip() for text in row.texts(name))
    if not answers or not all(answers):
        raise MezoError(f"{row.where}: expected some text in field {name!r}, found none")
    if not asks:
        return replace(talk, references=answers)
    said = {"role": "assistant", "content": answers[0]}
    return replace(
        talk, messages=(*talk.messages, said), first_learned=len(talk.messages), references=answers
    )
