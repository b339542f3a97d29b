"""A row as SGLang is asked for it and answers it, in Python as over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from mezo.engines.backend import Answer, Ask


def scoring(asks: Sequence[Ask]) -> dict[str, Any]:
    """The arguments of `generate` that make it score these rows: all but their adapters."""
    wanted: dict[str, Any] = {
        "input_ids": [list(ask.tokens) for ask in asks],
        "sampling_params": [{"max_new_tokens": 1 if ask.choices else 0, "temperature": 0} for ask in asks],
        "return_logprob": [True] * len(asks),
        # -1: only of what is written
        "logprob_start_len": [-1 if ask.choices else ask.start - 1 for ask in asks],
    }
    if any(ask.choices for ask in asks):  # every entry must be a list, or none of them
        wanted["token_ids_logprob"] = [list(ask.choices) for ask in asks]
    return wanted


def answer_of(ask: Ask, found: Mapping[str, Any]) -> Answer:
    """From a row's `meta_info`. Raises KeyError, IndexError, TypeError or ValueError where it has another form."""
    if ask.choices:
        by_token = {token: value for value, token, _ in found["output_token_ids_logprobs"][0]}
        values = [by_token[token] for token in ask.choices]
    else:
        listed = found["input_token_logprobs"]
        rows = listed[len(listed) - (len(ask.tokens) - ask.start) :]
        if tuple(token for _, token, _ in rows) != ask.tokens[ask.start :]:
            raise ValueError("log-probabilities of other tokens than those asked for")
        values = [value for value, _, _ in rows]
    return Answer(tuple(map(_number, values)), int(found["prompt_tokens"]), int(found["cached_tokens"]))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log-probability that is no number: {value!r:.40}")
    return float(value)
