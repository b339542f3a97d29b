"""A row as SGLang is asked for it and answers it, in Python as over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from mezo.engines.serving.backend import Answer, Ask, Tokens
from mezo.util.writing import Writing


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


def written(asks: Sequence[Ask], writing: Writing) -> dict[str, Any]:
    """The arguments of `generate` that make it write after these rows: all but their adapters."""
    common: dict[str, Any] = {
        "max_new_tokens": writing.max_new_tokens,
        "temperature": writing.temperature,
        "stop": list(writing.stop),
        "stop_token_ids": list(writing.ends),
    }
    if writing.draws:
        common |= {"top_p": writing.top_p, "top_k": writing.top_k or -1}
    seeds = [{"sampling_seed": ask.seed} if writing.draws else {} for ask in asks]
    return {
        "input_ids": [list(ask.tokens) for ask in asks],
        "sampling_params": [{**common, **seed} for seed in seeds],
    }


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
    counts = [count_of(found[name]) for name in ("prompt_tokens", "cached_tokens")]
    return Answer(tuple(map(logprob_of, values)), *counts)


_ROUNDING = 1e-3  # above 0: of a probability that is 1, in 16 bits


def logprob_of(value: Any) -> float:
    """A server's log-probability. Raises TypeError or ValueError for what cannot be one; NaN ends the step elsewhere."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a log-probability that is no number: {value!r:.40}")
    if value > _ROUNDING:
        raise ValueError(f"a log-probability above 0: {value!r:.40}")
    return float(value)


def count_of(value: Any) -> int:
    """A server's number of tokens, or a token's number."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise TypeError(f"a number of tokens that cannot be one: {value!r:.40}")
    return value


def tokens_of(values: Any, writing: Writing) -> Tokens:
    """What a server has written. Raises TypeError or ValueError for what cannot be that."""
    if not isinstance(values, list) or len(values) > writing.max_new_tokens:
        raise ValueError(f"{writing.max_new_tokens} tokens at most were to be written: {values!r:.40}")
    found = tuple(map(count_of, values))
    if any(token >> 31 for token in found):
        raise ValueError(f"a token that cannot be one: {max(found)}")
    return found
