"""The process that holds a serving engine for a run: `python -m mezo.engines.serving.subprocess_main ENGINE IN OUT`.

`mezo.engines.serving.subprocess` starts it and sends an EngineSpec, then calls of `Backend`, through the file
descriptors IN and OUT (`mezo.engines.serving.wire`). Standard error is the engine's log. It ends with the pipe or
with its parent.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, BinaryIO

import torch

from mezo.engines.serving.backend import Ask, Backend, EngineSpec, LoraSpec, Tensors
from mezo.engines.serving.wire import receive, send
from mezo.errors import MezoError
from mezo.util.writing import Writing


def main(engine: str, reads: int, writes: int) -> None:
    for descriptor in (reads, writes):
        os.set_inheritable(descriptor, False)  # else the pipe would stay open in workers that outlive this
    _die_with(os.getppid())
    with os.fdopen(reads, "rb") as source, os.fdopen(writes, "wb") as out:
        asked, _ = receive(source)
        try:
            backend = import_module(f"mezo.engines.{engine}.backend").start(spec_of(asked))
        except BaseException as error:
            send(out, _failure(error))
            return
        send(out, {"ok": None})
        try:
            serve(backend, source, out)
        finally:
            backend.close()


def serve(backend: Backend, source: BinaryIO, out: BinaryIO) -> None:
    """Answer calls until "close" or the end of the pipe."""
    while True:
        try:
            asked, tensors = receive(source)
        except EOFError:
            return
        if asked["call"] == "close":
            backend.close()
            send(out, {"ok": None})
            return
        try:
            answer = {"ok": call(backend, asked["call"], asked["arguments"], tensors)}
        except Exception as error:
            answer = _failure(error)
        send(out, answer)


def call(backend: Backend, name: str, given: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """One call of a Backend's methods, from and to JSON values."""
    match name:
        case "score":
            asks = [Ask(tuple(t), start, adapter, tuple(c)) for t, start, adapter, c in given["asks"]]
            return [[a.logprobs, a.prompt_tokens, a.cached_tokens] for a in backend.score(asks)]
        case "write":
            asks = [Ask(tuple(t), adapter=adapter, seed=seed) for t, adapter, seed in given["asks"]]
            listed = {name: tuple(given["writing"][name]) for name in ("stop", "ends")}
            writing = Writing(**{**given["writing"], **listed})
            return backend.write(asks, writing)
        case "load_adapters":
            adapters = unpacked(given["names"], tensors)
            return backend.load_adapters(adapters, given["config"])
        case "unload_adapters":
            return backend.unload_adapters(given["names"])
        case "call_workers":
            return backend.call_workers(given["operation"], given["arguments"])
        case "flush":
            return backend.flush()
    raise MezoError(f"an engine was asked to {name!r}, which is no method of it")


def packed(adapters: Iterable[Tensors]) -> dict[str, torch.Tensor]:
    """The tensors of several adapters as those of one message."""
    return {f"{n}/{name}": tensor for n, own in enumerate(adapters) for name, tensor in own.items()}


def unpacked(names: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """What `packed` was given, under the adapters' names."""
    found: list[dict[str, torch.Tensor]] = [{} for _ in names]
    for key, tensor in tensors.items():
        n, _, name = key.partition("/")
        found[int(n)][name] = tensor
    return dict(zip(names, found, strict=True))


def values_of(spec: EngineSpec) -> dict[str, Any]:
    """The spec as JSON values."""
    return asdict(spec) | {"server_args": dict(spec.server_args)}


def spec_of(values: Mapping[str, Any]) -> EngineSpec:
    """What `values_of` made it from."""
    lora = values["lora"]
    if lora is not None:
        lora = LoraSpec(**lora | {"matrices": tuple(lora["matrices"])})
    return EngineSpec(**{**values, "lora": lora, "servers": tuple(values["servers"])})


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, MezoError):
        return {"error": str(error)}
    traceback.print_exception(error)
    said = " ".join(str(error).split()) or "no reason given"
    return {"error": f"{type(error).__name__}: {said}"}


def _die_with(parent: int) -> None:
    """End this process and all it started when `parent` is gone, even in the middle of a call."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
