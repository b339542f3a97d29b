"""Conversations through a tokenizer's chat template, with the assistant's turns to be learned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mezo.data.tokens import continuation, token_ids
from mezo.errors import MezoError
from mezo.scoring import Example
from mezo.tasks.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_chat(
    talk: Conversation,
    where: str,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    *,
    turns: str,
    end: tuple[int, ...],
) -> Example:
    """The prompt is all before the first turn to learn; of what follows, the tokens of such turns are scored.

    A turn to learn begins where the template's generation prompt ends, as when the model answers, and ends with the end
    token that the template closes it with, or else with `end`. The earliest exchanges of a conversation that is too long
    are dropped, but not its system prompt, and then the end of the last answer.

    Raises MezoError, which names the row, if the template refuses the conversation or writes its turns in another way
    once others follow, or if nothing to learn fits.
    """
    if not talk.learned(turns):
        return _prompt(talk, where, tokenizer, max_length, turns)
    choices = shorter(talk, turns)
    while True:
        talk = choices.pop(0)
        ids, spans = turn_tokens(talk, where, tokenizer, turns, end)
        if len(ids) <= max_length or not choices:
            break
    start = spans[0][0]
    if start >= max_length:
        raise MezoError(
            f"{where}: the conversation before its last answer has {start} tokens, and max_length is {max_length}: raise "
            "max_length"
        )
    ids = ids[:max_length]
    scored = tuple(i - start for a, b in spans for i in range(a, min(b, len(ids))))
    ids = ids[: start + scored[-1] + 1]
    whole = scored == tuple(range(len(ids) - start))
    answer = str(talk.messages[talk.learned(turns)[-1]]["content"])
    return Example(
        tuple(ids[:start]),
        (tuple(ids[start:]),),
        0,
        references=talk.references or (answer.strip(),),
        scored=None if whole else scored,
    )


def _prompt(
    talk: Conversation, where: str, tokenizer: "PreTrainedTokenizerBase", max_length: int, turns: str
) -> Example:
    """The whole conversation, without an answer. Raises MezoError if its last messages alone do not fit."""
    for each in shorter(talk, turns):
        opened = _rendered(tokenizer, each, len(each.messages), where, asks=True)
        (ids,) = token_ids(tokenizer, [opened], special=False)
        if len(ids) <= max_length:
            return Example(tuple(ids), (), 0, references=talk.references)
    raise MezoError(
        f"{where}: the conversation has {len(ids)} tokens without what may be left out, and max_length is {max_length}: raise "
        "max_length"
    )


def shorter(talk: Conversation, turns: str) -> list[Conversation]:
    """The conversation, and then without its earliest exchanges, as long as there is something to learn in it."""
    found, messages, first = [talk], list(talk.messages), talk.first_learned
    while True:
        asks = [n for n, m in enumerate(messages) if m["role"] == "user"]
        if len(asks) < 2:
            return found
        gone = asks[1] - asks[0]
        messages = messages[: asks[0]] + messages[asks[1] :]
        first = max(first - gone, asks[0])
        rest = replace(talk, messages=tuple(messages), first_learned=first)
        if talk.learned(turns) and not rest.learned(turns):
            return found
        found.append(rest)


def turn_tokens(
    talk: Conversation, where: str, tokenizer: "PreTrainedTokenizerBase", turns: str, end: tuple[int, ...]
) -> tuple[list[int], list[tuple[int, int]]]:
    """All tokens up to the last turn to learn, and where each such turn is among them: [start, end)."""
    learned = talk.learned(turns)
    whole = _rendered(tokenizer, talk, learned[-1] + 1, where)
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    written = 0  # characters
    for n in learned:
        opened = _rendered(tokenizer, talk, n, where, asks=True)
        closed = _rendered(tokenizer, talk, n + 1, where)
        border = _common(opened, closed)
        if not whole.startswith(closed.rstrip()) or border < written or border < len(opened.rstrip()) - 1:
            raise MezoError(
                f"{where}: this model's chat template writes message {n} differently when others follow it: learn the last "
                "turn alone (--turns last)"
            )
        ids = _extended(tokenizer, ids, whole[:written], whole[:border])
        start = len(ids)
        ids = _extended(tokenizer, ids, whole[:border], whole[: len(closed)])
        spans.append((start, _closed_at(tokenizer, ids, start)))
        written = min(len(closed), len(whole))
    start, stop = spans[-1]
    ids = ids[:stop]
    if end and ids[-1] != tokenizer.eos_token_id:
        ids += end
    spans[-1] = (start, len(ids))
    if any(a >= b for a, b in spans):
        raise MezoError(f"{where}: expected a turn of the assistant with some text, found an empty one")
    return ids, spans


def _extended(tokenizer: "PreTrainedTokenizerBase", ids: list[int], before: str, text: str) -> list[int]:
    """The tokens of `text`, which begins with `before`, whose tokens `ids` stay as they are."""
    (joined,) = token_ids(tokenizer, [text], special=False)
    if joined[: len(ids)] == ids:
        return joined
    return ids + continuation(tokenizer, text[len(before) :])


def _common(left: str, right: str) -> int:
    """The number of characters that both begin with."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _closed_at(tokenizer: "PreTrainedTokenizerBase", ids: list[int], start: int) -> int:
    """The place after the last end token of ids[start:], which the template closes a turn with; the end without one."""
    places = [i for i in range(start, len(ids)) if ids[i] == tokenizer.eos_token_id]
    return places[-1] + 1 if places else len(ids)


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", talk: Conversation, count: int, where: str, *, asks: bool = False
) -> str:
    """The first `count` messages as the template writes them; asks: and the beginning of an answer."""
    messages: list[Mapping[str, Any]] = list(talk.messages[:count])
    try:
        text: Any = tokenizer.apply_chat_template(
            messages,  # pyright: ignore[reportArgumentType]
            tools=None if talk.tools is None else list(talk.tools),
            tokenize=False,
            add_generation_prompt=asks,
        )
    except Exception as error:  # a template's own refusal, or an error in it
        said = " ".join(str(error).split()) or type(error).__name__
        raise MezoError(f"{where}: the chat template refuses this conversation: {said[:200]}") from None
    return str(text)
