"""One answer, piece by piece as it is written: for a look at what tuning did."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers.generation.streamers import BaseStreamer

from mezo.data.tokens import BROKEN, as_text, controls, token_ids
from mezo.engines.counts import Counts
from mezo.engines.transformers.generate import Writer
from mezo.errors import MezoError
from mezo.models.limits import with_a_row
from mezo.noise.seeds import sampling_key
from mezo.tuning.prefix_keys import prefix_of
from mezo.util.writing import Seeded, Writing

Message = Mapping[str, str]  # role, content
_COLD = 1e-4
MOST = 256  # tokens of an answer, where nothing is said


class Reply(NamedTuple):
    """An answer."""

    text: str
    tokens: int  # the end token included
    ended: bool  # by an end token or a stop string, and not by max_new_tokens


def prompt_tokens(tokenizer: Any, text: str, *, system: str | None = None, raw: bool = False) -> list[int]:
    """The tokens of one prompt.

    Args:
        tokenizer: of the model.
        text: the prompt.
        system: a system prompt.
        raw: the text as it is, without the chat template.

    Returns:
        Through the chat template, up to where the answer begins; without a template, the text itself.

    Raises:
        MezoError: a system prompt without a chat template, or an empty prompt.
    """
    if raw or not tokenizer.chat_template:
        if system is not None:
            why = "--raw leaves the chat template out" if raw else "this model has no chat template"
            raise MezoError(f"a system prompt needs a chat template, and {why}: write it into the prompt")
        (ids,) = token_ids(tokenizer, [text], special=True)
        if not ids:
            raise MezoError("expected a prompt, found an empty one")
        return ids
    before = [] if system is None else [{"role": "system", "content": system}]
    return chat_tokens(tokenizer, [*before, {"role": "user", "content": text}])


def chat_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens of a conversation, up to where the answer begins. Control tokens in a message are text.

    Args:
        tokenizer: with a chat template.
        messages: with role and content.

    Raises:
        MezoError: there is no chat template, or it refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise MezoError(
            "this model has no chat template: give one with --chat-template (chatml, plain or a file)"
        )
    pattern = controls(tokenizer)
    plain = [dict(m) if pattern is None else as_text(dict(m), pattern) for m in messages]
    try:
        text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template's own refusal, or an error in it
        said = " ".join(str(error).replace(BROKEN, "").split()) or type(error).__name__
        raise MezoError(f"the chat template refuses this conversation: {said[:200]}") from None
    (ids,) = token_ids(tokenizer, [str(text)], special=False)
    return ids


def write(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[int],
    writing: Writing | None = None,
    seeded: Seeded | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Reply:
    """What a model writes after a prompt, up to an end token or a stop string: the sampler is that of a run by rewards.

    Args:
        model: a causal model, with its adapter if it has one.
        tokenizer: the model's.
        prompt: token ids.
        writing: how tokens are chosen, and where the text ends; by default the likeliest, and 256 up to an end token.
        seeded: what they are drawn by; by default as the first row of a run's first step, with seed 0.
        on_text: called with each piece of text as soon as it is known.

    Returns:
        The text without special tokens.

    Raises:
        MezoError: the prompt has no room in the model, or the model's logits are NaN.
    """
    writing = writing or Writing(MOST, ())
    pad = with_a_row((tokenizer.pad_token_id, tokenizer.eos_token_id), model)
    writer = Writer(model, tokenizer, pad=pad, max_tokens=sys.maxsize, counts=Counts(), shares=False)
    room = _room(model, len(prompt))
    new = writing.max_new_tokens if room is None else min(writing.max_new_tokens, room)
    # at low temperatures the likeliest token has all of the probability, and logits over it overflow
    heat = writing.temperature if writing.temperature > _COLD else 0.0
    writing = replace(writing, max_new_tokens=new, temperature=heat)
    streamer = None if on_text is None else _Streamer(writer, writing, on_text)
    (tokens,) = writer.tokens([prompt], writing, [seeded or seed_of(0)], streamer)
    whole = writer.text(tokens, writing)
    ended = bool(tokens) and (tokens[-1] in writer.ends_of(writing) or writing.is_over(whole))
    return Reply(writing.cut(whole), len(tokens), ended)


def seed_of(seed: int, turn: int = 0) -> Seeded:
    """What is drawn by: as the first row of step `turn` of a run with this seed, at any of its probes."""
    return Seeded(sampling_key(seed, turn, 0))


def _room(model: Any, length: int) -> int | None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    prefix = prefix_of(model)
    room = limit - length - (0 if prefix is None else prefix.num_tokens)
    if room < 1:
        raise MezoError(
            f"{length} tokens so far, and the model has {limit} positions: shorten it, or /reset a chat"
        )
    return room


class _Streamer(BaseStreamer):
    """Hands on the text as it comes: whole characters, and nothing that may be part of a stop string."""

    def __init__(self, writer: Writer, writing: Writing, on_text: Callable[[str], None]) -> None:
        self.writer, self.writing, self.on_text = writer, writing, on_text
        self._tokens: list[int] | None = None  # none before the prompt has come
        self._shown = ""

    def put(self, value: torch.Tensor) -> None:
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += value.flatten().tolist()
        whole = self.writer.text(self._tokens, self.writing)
        if whole.endswith("\ufffd"):
            return  # half of a character
        self._show(self.writing.cut(whole[: len(whole) - self._held(whole)]))

    def end(self) -> None:
        self._show(self.writing.cut(self.writer.text(self._tokens or [], self.writing)))

    def _held(self, text: str) -> int:
        """Characters at the end that a stop string may begin with."""
        begun = (n for s in self.writing.stop for n in range(1, len(s)) if text.endswith(s[:n]))
        return max(begun, default=0)

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown):
            self.on_text(text[len(self._shown) :])
            self._shown = text
