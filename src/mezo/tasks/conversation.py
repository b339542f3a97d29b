"""Conversations as people store them: OpenAI's `messages`, ShareGPT's `conversations`, TRL's lists in prompt and completion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.row import Row, shown

# ShareGPT's names of the speakers, and others seen in such files.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
}
_KNOWN = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in the form that chat templates take, and where the turns to learn begin."""

    messages: tuple[Mapping[str, Any], ...]  # each with role and content, and what else a template may read
    tools: Sequence[Any] | None = None
    first_learned: int = 0  # turns of the assistant before this message are context
    references: tuple[str, ...] = ()  # accepted answers; () means the last turn to learn
    begun: str = ""  # what the model writes after the messages begins with this
    rejected: Mapping[str, Any] | None = None  # what is not to be said in place of the last message

    def learned(self, turns: str) -> tuple[int, ...]:
        """Places of the assistant's messages to learn: "all", or the "last" alone."""
        found = [
            n for n, m in enumerate(self.messages) if m["role"] == "assistant" and n >= self.first_learned
        ]
        return tuple(found[-1:] if turns == "last" else found)


def conversation_in(row: Row, name: str) -> Conversation:
    """The messages in field `name`, with the row's `system` text before them and its `tools`. Raises MezoError."""
    messages = messages_in(row, name)
    system = row.fields.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return Conversation(tuple(messages), row.fields.get("tools") or None)


def messages_in(row: Row, name: str) -> list[dict[str, Any]]:
    """A list of messages, each {role, content} or ShareGPT's {from, value}. Raises MezoError, which names the message."""
    value = row.value(name)
    if isinstance(value, str) and value.lstrip().startswith("["):  # as a CSV has a list
        value = _parsed(value, row, name)
    if isinstance(value, str) or not isinstance(value, Sequence) or not len(value):
        raise MezoError(f"{row.where}: expected a list of messages in field {name!r}, found {shown(value)}")
    return [_message(item, f"{row.where}: message {n} of {name!r}") for n, item in enumerate(value)]


def is_messages(value: Any) -> bool:
    """Whether it is a list of messages, or one as JSON in a CSV."""
    return not isinstance(value, str) or (value.startswith("[{") and '"role"' in value)


def _parsed(text: str, row: Row, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MezoError(
            f"{row.where}: expected a list of messages as JSON in field {name!r}, found broken JSON: {error}"
        ) from None


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise MezoError(f"{where}: expected an object with role and content, found {shown(item)}")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str):
        raise MezoError(f"{where}: expected a role, found fields {', '.join(map(repr, item)) or 'none'}")
    role = _ROLES.get(role, role)
    if role not in _KNOWN:
        raise MezoError(f"{where}: expected a role of {', '.join(_KNOWN)}, found {role!r:.40}")
    # Arrow gives every message the fields of all of them, absent ones as None.
    others = {
        k: v for k, v in item.items() if k not in ("role", "from", "content", "value") and v is not None
    }
    return {"role": role, "content": _text(content, where, others), **others}


def _text(content: Any, where: str, others: Mapping[str, Any]) -> str:
    """The text of a message: a string, or parts of text as OpenAI's API has them."""
    if isinstance(content, str):
        return content
    if content is None and "tool_calls" in others:
        return ""
    if isinstance(content, Sequence) and all(
        isinstance(p, Mapping) and p.get("type") == "text" for p in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    raise MezoError(f"{where}: expected text as its content, found {shown(content)}")
