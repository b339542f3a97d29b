"""Text from a model, by transformers' own `generate`: for a look at what tuning did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TextStreamer

from mezo.data.tokens import BROKEN, as_text, controls, token_ids
from mezo.errors import MezoError
from mezo.models.limits import with_a_row
from mezo.tuning.prefix_keys import prefix_of

Message = Mapping[str, str]  # role, content
_COLD = 1e-4  # at and below, the likeliest token has all of the probability, and logits over it overflow


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Args:
        max_new_tokens: the longest answer, in tokens.
        temperature: 0 takes the likeliest token; higher values draw more freely.
        top_p: draw from the likeliest tokens that have this probability together; 1 for all.
        top_k: draw from so many of the likeliest tokens; 0 for all.
        seed: of the draws.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


class Reply(NamedTuple):
    """An answer."""

    text: str
    tokens: int  # the end token included
    ended: bool  # by an end token, and not by max_new_tokens


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
    sampling: Sampling | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Reply:
    """What a model writes after a prompt, up to an end token of the model or of the tokenizer.

    Args:
        model: a causal model, with its adapter if it has one.
        tokenizer: the model's.
        prompt: token ids.
        sampling: how tokens are chosen; by default the likeliest.
        on_text: called with each piece of text as soon as it is known.

    Returns:
        The text without special tokens.

    Raises:
        MezoError: the prompt has no room in the model, or the model's logits are NaN.
    """
    sampling = sampling or Sampling()
    room = _room(model, len(prompt))
    new = sampling.max_new_tokens if room is None else min(sampling.max_new_tokens, room)
    ends = end_tokens(model, tokenizer)
    ids = torch.tensor([list(prompt)], device=model.device)
    with torch.random.fork_rng(_devices(model)):
        torch.manual_seed(sampling.seed)
        with torch.no_grad():
            whole = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_config(model, tokenizer, sampling, new, ends),
                logits_processor=LogitsProcessorList([_Numbers()]),
                streamer=None if on_text is None else _Streamer(tokenizer, on_text),
            )
    tokens = whole[0, len(prompt) :].tolist()
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Reply(text, len(tokens), bool(tokens) and tokens[-1] in ends)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of the model's generation config, and the tokenizer's."""
    given = getattr(model, "generation_config", None)
    named = [getattr(given, "eos_token_id", None), tokenizer.eos_token_id]
    flat = [e for end in named for e in (end if isinstance(end, list | tuple) else [end])]
    return sorted({e for e in flat if isinstance(e, int)})


def _config(model: Any, tokenizer: Any, sampling: Sampling, new: int, ends: list[int]) -> GenerationConfig:
    """All that the model's own generation config says of sampling and penalties is left out: the options say it."""
    # the defaults, which greedy search ignores
    draws: dict[str, Any] = dict(temperature=1.0, top_p=1.0, top_k=50)
    if sampling.temperature > _COLD:
        draws = dict(temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
    return GenerationConfig(
        max_new_tokens=new,
        do_sample=sampling.temperature > _COLD,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        pad_token_id=with_a_row((tokenizer.pad_token_id, tokenizer.eos_token_id), model),
        eos_token_id=ends or None,
        **draws,
    )


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


def _devices(model: Any) -> list[int]:
    """GPUs whose random state is put back afterwards."""
    return [model.device.index or 0] if model.device.type == "cuda" else []


class _Numbers(LogitsProcessor):
    """Changes nothing. Raises MezoError for logits that are NaN."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if bool(scores.isnan().any()):
            raise MezoError(
                "the model's logits are undefined (NaN), so there is no next token; if this is a run's model, tune it again "
                "with a lower learning rate, or try --dtype float32"
            )
        return scores


class _Streamer(TextStreamer):
    """Hands on the text as it comes: whole words, no special tokens."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        super().__init__(
            tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self.on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.on_text(text)
