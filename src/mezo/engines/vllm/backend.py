"""vLLM as it is installed. Imported in the engine's own process (`mezo.engines.serving.subprocess`).

Scoring: given tokens after a row by `logprob_token_ids`, which reads the prefix cache in whole blocks; a row's own
tokens likewise, a short row for each, or, where there are many, by `prompt_logprobs`, which never reads the cache.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import save

from mezo.engines.serving.backend import (
    Answer,
    Ask,
    Backend,
    EngineSpec,
    LoraSpec,
    Names,
    Tensors,
    Tokens,
    core_ranges,
)
from mezo.errors import MezoError
from mezo.util.writing import Writing

INSTALL = "see docs/engines.md for the commands that install it"
_WORKER = (
    "mezo.engines.workers.vllm.MezoWorker"  # of full-parameter tuning: it turns the packing of weights off
)
_ADAPTERS = "mezo.engines.vllm.adapters.MezoAdapters"
_BOTH = "mezo.engines.vllm.rank_one.MezoRankOne"
_BLOCK = 32  # tokens; on a CPU the default is 128, and short prompts would have nothing in common
_CACHE_GIB = "1"  # of keys and values on a CPU, where vLLM would take half of the memory
_HELD = 512  # adapters held at once, most of them waiting for a place; no memory is set aside for them
_SHORT = 8  # tokens of a candidate that are asked for one by one


def start(spec: EngineSpec) -> "VLLM":
    """Raises MezoError if vLLM is not installed, or refuses the spec."""
    on_cpu = spec.device == "cpu" or (spec.device == "auto" and not torch.cuda.is_available())
    if on_cpu:
        _prepare_cpu(spec.tensor_parallel)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        from vllm import LLM  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
    except ImportError as error:
        raise MezoError(f"cannot import vllm ({error}): {INSTALL}") from None
    try:
        return VLLM(LLM(**engine_options(spec, on_cpu)), spec)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise MezoError(f"vLLM did not start: {type(error).__name__}: {said}") from error


def engine_options(spec: EngineSpec, on_cpu: bool) -> dict[str, Any]:
    """The arguments of vllm.LLM; the spec's server_args win."""
    options: dict[str, Any] = {
        "model": spec.model,
        "dtype": spec.dtype,
        "tensor_parallel_size": spec.tensor_parallel,
        "trust_remote_code": spec.trust_remote_code,
        "max_model_len": spec.max_length,
        "seed": 0,
        "enable_prefix_caching": spec.cache,
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": -1,  # as many candidates as are asked for
    }
    if on_cpu:
        options |= {
            "enforce_eager": True,
            "block_size": _BLOCK,
            "max_num_seqs": 64,
            "max_num_batched_tokens": max(4096, spec.max_length),
        }
    if spec.full:
        options["worker_extension_cls"] = _WORKER
    if spec.lora is not None:
        options |= lora_options(spec.lora)
    if spec.lora is not None and spec.full:
        options["worker_extension_cls"] = _BOTH
    return options | dict(spec.server_args)


def lora_options(lora: LoraSpec) -> dict[str, Any]:
    return {
        "enable_lora": True,
        "worker_extension_cls": _ADAPTERS,
        # it knows 1, and powers of two from 8 on
        "max_lora_rank": 1 if lora.rank == 1 else max(8, 1 << (lora.rank - 1).bit_length()),
        # lm_head left out: with an adapter's place on it, log-probabilities of the prompt crash
        "lora_target_modules": list(lora.matrices),
        # on a CPU, rows of the base model get the last adapter's values unless a place is left over
        "max_loras": lora.at_once + 1,
        "max_cpu_loras": max(_HELD, lora.at_once + 1),
    }


class VLLM(Backend):
    """A model in vLLM's processes: LoRA by adapters in memory, all parameters inside the workers.

    Example:
        mezo train --engine vllm --tuning lora --model ./my-model --task sst2
    """

    def __init__(self, llm: Any, spec: EngineSpec):
        self.llm, self.spec = llm, spec
        self.names, self._open = Names(), True
        self._ids = itertools.count(1)  # an adapter's number is used once, as its name is
        self._loaded: dict[str, Any] = {}

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        pieces = [_pieces(ask, cached=self.spec.cache) for ask in asks]
        found = iter(self._found([piece for pieces_of in pieces for piece in pieces_of]))
        return [_joined(ask, [next(found) for _ in own]) for ask, own in zip(asks, pieces, strict=True)]

    def _found(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers to questions each of which is one request of vLLM's."""
        if not asks:
            return []
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        outputs = self._generate(
            [ask.tokens for ask in asks],
            [SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, **_wanted(ask)) for ask in asks],
            [ask.adapter for ask in asks],
        )
        return [_answer(ask, output) for ask, output in zip(asks, outputs, strict=True)]

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        if not asks:
            return []
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        def asked(ask: Ask) -> Any:
            draws = dict(top_p=writing.top_p, top_k=writing.top_k, seed=ask.seed) if writing.draws else {}
            return SamplingParams(
                max_tokens=writing.max_new_tokens,
                temperature=writing.temperature,
                stop=list(writing.stop),
                stop_token_ids=list(writing.ends),
                **draws,
            )

        outputs = self._generate(
            [ask.tokens for ask in asks], [asked(ask) for ask in asks], [ask.adapter for ask in asks]
        )
        return [tuple(output.outputs[0].token_ids) for output in outputs]

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        self.load_adapters({name: tensors}, config)

    def unload_adapter(self, name: str) -> None:
        self.unload_adapters([name])

    def load_adapters(self, adapters: Mapping[str, Tensors], config: Mapping[str, Any]) -> None:
        """In one call of the workers: one by one, each of a step's adapters would take a call of its own."""
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        # the path is never read: the workers hold the adapter under its number before it is asked for
        requests = {
            name: LoRARequest(lora_name=name, lora_int_id=next(self._ids), lora_path="in-memory")
            for name in adapters
        }
        for name in adapters:
            self.names.take(name)
        try:
            numbers = [request.lora_int_id for request in requests.values()]
            self._in_workers(
                "mezo_adapters", numbers, [_file(own) for own in adapters.values()], dict(config)
            )
        except BaseException:
            for name in adapters:
                self.names.drop(name)
            raise
        self._loaded |= requests

    def unload_adapters(self, names: Sequence[str]) -> None:
        for name in names:
            self.names.drop(name)
        if names:
            self._in_workers("mezo_forget", [self._loaded.pop(name).lora_int_id for name in names])

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self._in_workers("mezo", operation, dict(arguments))

    def flush(self) -> None:
        with _ending_with_it():
            done = self.llm.reset_prefix_cache()
        if not done:
            raise MezoError("vLLM refused to flush its prefix cache: requests are still running")

    def close(self) -> None:
        if self._open:
            self._open = False
            self.llm.llm_engine.engine_core.shutdown()

    def _generate(self, rows: Sequence[Tokens], asked: list[Any], adapters: list[str | None]) -> list[Any]:
        with _ending_with_it():
            return self.llm.generate(
                [{"prompt_token_ids": list(row)} for row in rows],
                asked,
                lora_request=[self._request(adapter) for adapter in adapters],
                use_tqdm=False,
            )

    def _in_workers(self, method: str, *arguments: Any) -> list[Any]:
        with _ending_with_it():
            return self.llm.collective_rpc(method, args=arguments)

    def _request(self, adapter: str | None) -> Any:
        self.names.need(adapter)
        return None if adapter is None else self._loaded[adapter]


def _file(tensors: Tensors) -> bytes:
    return save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})


@contextlib.contextmanager
def _ending_with_it() -> Iterator[None]:
    """End this process when vLLM's engine process dies: vLLM raises that as an error like any other."""
    from vllm.v1.engine.exceptions import EngineDeadError  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    try:
        yield
    except EngineDeadError as error:
        print(f"EngineDeadError: {error}", file=sys.stderr, flush=True)  # the last words of the log
        raise SystemExit(1) from error


def _pieces(ask: Ask, *, cached: bool) -> list[Ask]:
    """The ask as it is, or a question for each of its few tokens, which can read common beginnings from the cache."""
    if ask.choices or not cached or len(ask.tokens) - ask.start > _SHORT:
        return [ask]
    places = range(ask.start, len(ask.tokens))
    return [Ask(ask.tokens[:i], adapter=ask.adapter, choices=(ask.tokens[i],)) for i in places]


def _wanted(ask: Ask) -> dict[str, Any]:
    return {"logprob_token_ids": list(ask.choices)} if ask.choices else {"prompt_logprobs": 0}


def _answer(ask: Ask, output: Any) -> Answer:
    if ask.choices:
        listed = output.outputs[0].logprobs[0]
        values = [listed[token].logprob for token in ask.choices]
    else:
        values = [output.prompt_logprobs[i][ask.tokens[i]].logprob for i in range(ask.start, len(ask.tokens))]
    return Answer(tuple(map(float, values)), len(ask.tokens), output.num_cached_tokens or 0)


def _joined(ask: Ask, parts: Sequence[Answer]) -> Answer:
    """The answer to a row from those to its pieces. What one piece took from another is not a token saved."""
    logprobs = tuple(value for part in parts for value in part.logprobs)
    if len(parts) == 1:
        return Answer(logprobs, parts[0].prompt_tokens, parts[0].cached_tokens)
    computed = sum(part.prompt_tokens - part.cached_tokens for part in parts)
    # the row's last token is in none of the pieces: it is asked for, and not computed
    return Answer(logprobs, max(len(ask.tokens), computed), max(0, len(ask.tokens) - 1 - computed))


def _prepare_cpu(tensor_parallel: int) -> None:
    """What vLLM reads from the environment on a machine without a GPU; what is set already stays."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", _CACHE_GIB)
    if tensor_parallel > 1:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", core_ranges(tensor_parallel))
