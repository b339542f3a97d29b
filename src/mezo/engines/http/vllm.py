"""vLLM's HTTP interface: its completions, one request for the rows that ask the same of the same adapter.

No cached tokens are counted: the answer gives those of a request's last row only.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mezo.engines.http.client import Client, RequestRefused
from mezo.engines.http.server import Dialect, said, unexpected
from mezo.engines.http.share import at_once
from mezo.engines.serving.backend import Answer, Ask, Tokens
from mezo.engines.sglang.rows import logprob_of, tokens_of
from mezo.util.writing import Writing

_COMPLETIONS = "/v1/completions"
_CANDIDATES = 128  # as many tokens as one request may name


def find(client: Client, seconds: float) -> "VLLMServer | None":
    """The server if it is vLLM."""
    version = said(client, "/version", seconds)
    if not isinstance(version, dict) or not isinstance(version.get("version"), str):
        return None
    listed = said(client, "/v1/models", seconds)
    try:
        (base, *_) = [model for model in listed["data"] if not model.get("parent")]
        root = base.get("root") or base["id"]
        if not (isinstance(base["id"], str) and isinstance(root, str)):
            raise TypeError("a model whose name is no text")
        return VLLMServer(client, base["id"], root)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unexpected(client, "/v1/models", error) from error


class VLLMServer(Dialect):
    kind = "vLLM"

    def __init__(self, client: Client, model: str, served: str):
        super().__init__(client)
        self.model, self.served = model, served

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        groups: dict[tuple[str | None, Tokens], list[int]] = {}
        for number, ask in enumerate(asks):
            for begin in range(0, max(1, len(ask.choices)), _CANDIDATES):
                wanted = ask.choices[begin : begin + _CANDIDATES]
                groups.setdefault((ask.adapter, wanted), []).append(number)
        calls = [
            partial(self._scored, adapter, choices, [asks[n] for n in numbers])
            for (adapter, choices), numbers in groups.items()
        ]
        values: list[list[float]] = [[] for _ in asks]
        for numbers, found in zip(groups.values(), at_once(calls), strict=True):
            if isinstance(found, Exception):
                raise found
            for number, row in zip(numbers, found, strict=True):
                values[number].extend(row)
        return [Answer(tuple(row), len(ask.tokens), 0) for ask, row in zip(asks, values, strict=True)]

    def _scored(self, adapter: str | None, choices: Tokens, asks: Sequence[Ask]) -> list[list[float]]:
        """Those of `choices` after each row, or of the rows' own tokens where those are missing."""
        if choices:
            wanted = {"logprobs": 1, "logprob_token_ids": list(choices), "return_tokens_as_token_ids": True}
        else:
            wanted = {"prompt_logprobs": 0}  # of the tokens themselves, and of no others beside them
        found = self._completed([ask.tokens for ask in asks], adapter, {"max_tokens": 1, **wanted})
        try:
            if choices:
                listed = [row["logprobs"]["top_logprobs"][0] for row in found]
                return [[logprob_of(own[f"token_id:{token}"]) for token in choices] for own in listed]
            return [_of_tokens(ask, row) for ask, row in zip(asks, found, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise unexpected(self.client, _COMPLETIONS, error) from error

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        """A request for the rows of an adapter; of one row where tokens are drawn, since a request has one seed."""
        groups: dict[tuple[str | None, int | None], list[int]] = {}
        for number, ask in enumerate(asks):
            groups.setdefault((ask.adapter, number if writing.draws else None), []).append(number)
        calls = [partial(self._written, [asks[n] for n in numbers], writing) for numbers in groups.values()]
        outputs: dict[int, Tokens] = {}
        for numbers, found in zip(groups.values(), at_once(calls), strict=True):
            if isinstance(found, Exception):
                raise found
            outputs.update(zip(numbers, found, strict=True))
        return [outputs[number] for number in range(len(asks))]

    def _written(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        """Of asks of one adapter, and of one seed where tokens are drawn."""
        # all is named: else the server takes what the model's generation_config.json says
        wanted: dict[str, Any] = {
            "max_tokens": writing.max_new_tokens,
            "stop": list(writing.stop),
            "stop_token_ids": list(writing.ends),
            "return_token_ids": True,
            "repetition_penalty": 1.0,
            "min_p": 0.0,
        }
        if writing.draws:
            wanted |= {"temperature": writing.temperature, "top_p": writing.top_p, "top_k": writing.top_k}
            wanted["seed"] = asks[0].seed
        found = self._completed([ask.tokens for ask in asks], asks[0].adapter, wanted)
        try:
            return [tokens_of(row["token_ids"], writing) for row in found]
        except (KeyError, TypeError, ValueError) as error:
            raise unexpected(self.client, _COMPLETIONS, error) from error

    def _completed(
        self, prompts: Sequence[Tokens], adapter: str | None, wanted: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        if not prompts:
            return []
        rows = [list(prompt) for prompt in prompts]
        body = {"model": adapter or self.model, "prompt": rows, "temperature": 0, **wanted}
        found = self.client.once("POST", _COMPLETIONS, body)
        try:
            ordered = sorted(found["choices"], key=lambda choice: choice["index"])
            if [choice["index"] for choice in ordered] != list(range(len(rows))):
                raise ValueError(f"{len(ordered)} completions of {len(rows)} prompts")
            return ordered
        except (KeyError, TypeError, ValueError) as error:
            raise unexpected(self.client, _COMPLETIONS, error) from error

    def load(self, name: str, path: str) -> None:
        try:
            self.client.once("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        except RequestRefused as error:
            if error.status != 404:
                raise
            raise RequestRefused(
                f"{error}; a vLLM server takes adapters if it was started with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment",
                404,
            ) from None

    def unload(self, name: str) -> None:
        self.client.once("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def flush(self) -> None:
        self.client.once("POST", "/reset_prefix_cache", {})


def _of_tokens(ask: Ask, row: Mapping[str, Any]) -> list[float]:
    listed = row["prompt_logprobs"]
    if len(listed) != len(ask.tokens):
        raise ValueError(f"{len(listed)} log-probabilities of {len(ask.tokens)} tokens")
    return [logprob_of(listed[i][str(ask.tokens[i])]["logprob"]) for i in range(ask.start, len(ask.tokens))]
