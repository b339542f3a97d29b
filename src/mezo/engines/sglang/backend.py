"""SGLang as it is installed. Imported in the engine's own process (`mezo.engines.serving.subprocess`).

Scoring: log p of a row's tokens by `logprob_start_len`, log p of given tokens after a row by `token_ids_logprob`. The
radix cache serves both, up to the first token asked for.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mezo.engines.serving.backend import (
    Answer,
    Ask,
    Backend,
    EngineSpec,
    LoraSpec,
    Names,
    Tokens,
    core_ranges,
)
from mezo.engines.serving.requests import in_waves
from mezo.engines.sglang.rows import answer_of, scoring, written
from mezo.engines.workers.sglang import LOADER, read_answers, request
from mezo.errors import MezoError
from mezo.util.writing import Writing

INSTALL = "see docs/engines.md for the commands that install it"
_CPU_TOKENS = 16384  # room of the cache where SGLang would take most of the machine's memory


def start(spec: EngineSpec) -> "SGLang":
    """Raises MezoError if SGLang is not installed, or refuses the spec."""
    on_cpu = spec.device == "cpu" or (spec.device == "auto" and not torch.cuda.is_available())
    if on_cpu:
        _prepare_cpu(spec.tensor_parallel)
    try:
        from sglang import Engine  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
    except ImportError as error:
        raise MezoError(f"cannot import sglang ({error}): {INSTALL}") from None
    options = engine_options(spec, on_cpu)
    try:
        return SGLang(Engine(**options), spec)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise MezoError(f"SGLang did not start: {type(error).__name__}: {said}") from error


def engine_options(spec: EngineSpec, on_cpu: bool) -> dict[str, Any]:
    """The arguments of sglang.Engine; the spec's server_args win."""
    options: dict[str, Any] = {
        "model_path": spec.model,
        "dtype": spec.dtype,
        "tp_size": spec.tensor_parallel,
        "trust_remote_code": spec.trust_remote_code,
        "context_length": spec.max_length,
        "random_seed": 0,
        "skip_server_warmup": True,
        "disable_radix_cache": not spec.cache,
    }
    if on_cpu:
        options |= {
            "device": "cpu",
            "attention_backend": "torch_native",
            "disable_cuda_graph": True,
            # else its scheduler polls, on a core that the noise and other programs then lack
            "sleep_on_idle": True,
            "max_total_tokens": max(_CPU_TOKENS, 4 * spec.max_length),
            "max_running_requests": 64,
        }
    if spec.full:
        options["custom_weight_loader"] = [LOADER]
    if spec.lora is not None:
        options |= lora_options(spec.lora)
        if on_cpu:
            options["lora_backend"] = "torch_native"
    return options | dict(spec.server_args)


def lora_options(lora: LoraSpec) -> dict[str, Any]:
    return {
        "enable_lora": True,
        "max_lora_rank": lora.rank,
        "lora_target_modules": list(lora.matrices),
        "max_loras_per_batch": lora.at_once + 1,  # the base model takes a place of its own
    }


class SGLang(Backend):
    """A model in SGLang's processes: LoRA by adapters in memory, all parameters inside the workers.

    Example:
        mezo train --engine sglang --tuning lora --model ./my-model --task sst2
    """

    def __init__(self, engine: Any, spec: EngineSpec):
        self.engine, self.spec = engine, spec
        self.names, self._open = Names(), True
        if hasattr(engine, "freeze_gc"):
            engine.freeze_gc()  # else every flush on a CPU walks all of the scheduler's objects, for a second
        if spec.full and not hasattr(engine, "begin_weight_update"):
            raise MezoError(
                "this SGLang has no begin_weight_update, which full-parameter tuning needs: expected 0.5.23 or "
                "a later one; tune LoRA instead (--tuning lora)"
            )

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        return in_waves(asks, self._score) if self.spec.cache else self._score(asks)

    def _score(self, asks: Sequence[Ask]) -> list[Answer]:
        if not asks:
            return []
        answers = self.engine.generate(**scoring(asks), **self._adapters([ask.adapter for ask in asks]))
        return [answer_of(ask, found["meta_info"]) for ask, found in zip(asks, answers, strict=True)]

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        if not asks:
            return []
        answers = self.engine.generate(
            **written(asks, writing), **self._adapters([ask.adapter for ask in asks])
        )
        return [tuple(found["output_ids"]) for found in answers]

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        self.names.take(name)
        done = self.engine.load_lora_adapter_from_tensors(name, dict(tensors), dict(config))
        _check(done.success, f"load adapter {name!r}", done.error_message)

    def unload_adapter(self, name: str) -> None:
        self.names.drop(name)
        done = self.engine.unload_lora_adapter(name)
        _check(done.success, f"unload adapter {name!r}", done.error_message)

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder, self._session():
            asked = request(operation, dict(arguments), Path(folder))
            done = self.engine.update_weights_from_tensor(asked, load_format=LOADER, flush_cache=False)
            _check(done[0], operation, done[1])
            return read_answers(Path(folder), self.spec.tensor_parallel)

    def flush(self) -> None:
        done = self.engine.flush_cache()
        _check(done.success, "flush its cache", getattr(done, "message", ""))

    def close(self) -> None:
        if self._open:
            self._open = False
            self.engine.shutdown()

    def _adapters(self, names: list[str | None]) -> dict[str, Any]:
        for name in set(names):
            self.names.need(name)
        return {"lora_path": names} if any(names) else {}

    @contextlib.contextmanager
    def _session(self) -> Any:
        """Updates are taken inside a session alone; refusals come as (False, why), not as errors."""
        done = self.engine.begin_weight_update(selector="target")
        _check(done[0], "begin a weight update", done[1])
        try:
            yield
        finally:
            done = self.engine.end_weight_update()
        _check(done[0], "end a weight update", done[1])


def _check(done: bool, what: str, why: Any) -> None:
    if not done:
        raise MezoError(f"SGLang refused to {what}: {' '.join(str(why).split())}")


def _prepare_cpu(tensor_parallel: int) -> None:
    """What SGLang reads from the environment on a machine without a GPU; what is set already stays."""
    os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    if tensor_parallel > 1:
        os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", core_ranges(tensor_parallel))
