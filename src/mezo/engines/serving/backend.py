"""What a serving engine must do to be tuned on: score rows, write text, take adapters, reach its workers.

Each engine's `engines/NAME/backend.py` implements `Backend` and defines `start(spec: EngineSpec) -> Backend`.
Backends know nothing of probes, losses or theta (see `mezo.engines.serving.engine.ServingEngine`). Most run in a
process of their own (`mezo.engines.serving.subprocess`), so arguments and results are JSON values and tensors.
"""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mezo.errors import MezoError
from mezo.util.writing import Writing

Tokens = tuple[int, ...]
Tensors = Mapping[str, torch.Tensor]  # of an adapter, under the names of peft's adapter_model.safetensors


@dataclass(frozen=True, slots=True)
class Ask:
    """Log-probabilities wanted of one row: those of its tokens from `start` on, or of `choices` after it."""

    tokens: Tokens  # the whole row, at least two tokens unless there are choices
    start: int = 0  # log p(tokens[i] | tokens[:i]) for i in [start, len(tokens)); at least 1
    adapter: str | None = None  # the name of a loaded adapter; None: the base model
    choices: Tokens = ()  # instead: log p(token | tokens) of each of these, in this order
    seed: int = 0  # 31 bits: of what `Backend.write` draws after the row


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine found. len(logprobs) is len(tokens) - start, or len(choices)."""

    logprobs: tuple[float, ...]  # natural logarithms, without temperature
    prompt_tokens: int  # of the row
    cached_tokens: int  # of those, how many the engine's own cache spared


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """The adapters an engine must have room for."""

    rank: int
    at_once: int  # adapters that one call of `score` may name, the base model aside
    matrices: tuple[str, ...] = ()  # last names of the modules that hold them, such as q_proj


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What is to be started. Every value survives JSON."""

    model: str  # a folder, or a hub id
    dtype: str = "float32"
    device: str = "auto"  # auto, cpu or cuda
    tensor_parallel: int = 1
    max_length: int = 512  # tokens of the longest row, with what is written after it
    lora: LoraSpec | None = None
    full: bool = (
        False  # whether `call_workers` is needed; with `lora`, adapters are added to weights that it moves
    )
    cache: bool = True  # whether keys and values of rows that begin alike are computed once
    trust_remote_code: bool = False
    servers: tuple[str, ...] = ()  # of `http`: addresses of running servers
    server_args: Mapping[str, Any] = field(default_factory=dict)  # options of the engine's own; they win


class Backend(ABC):
    """A model held by a serving engine.

    Every method raises MezoError with one line about what the engine refused; an engine that died or was silent too
    long raises `mezo.engines.serving.subprocess.EngineDied`, and must be started again.
    """

    @abstractmethod
    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers, in order; the engine may batch them as it likes."""

    @abstractmethod
    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        """The tokens after each row, up to one that is in `writing.ends` or completes a stop string.

        More may follow: the caller makes the text and cuts it (`mezo.engines.output_text`). Where tokens are drawn, by
        the engine's own sampler with the ask's seed. `writing.samples` is for the caller.
        """

    @abstractmethod
    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        """Take a LoRA adapter, in memory. Raises MezoError for a name that was ever loaded before (`Names`): an
        engine's cache is keyed by name.

        tensors: under the names of peft's adapter_model.safetensors. config: its adapter_config.json.
        """

    @abstractmethod
    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; its name stays used."""

    def load_adapters(self, adapters: Mapping[str, Tensors], config: Mapping[str, Any]) -> None:
        """Take several adapters of one config, by their names: all of them, or none where one is refused.

        One after another, where an engine does not take them in one call.
        """
        done: list[str] = []
        try:
            for name, tensors in adapters.items():
                self.load_adapter(name, tensors, config)
                done.append(name)
        except BaseException:
            with contextlib.suppress(MezoError):  # what was wrong with the one is what is said
                self.unload_adapters(done)
            raise

    def unload_adapters(self, names: Sequence[str]) -> None:
        """Forget several adapters."""
        for name in names:
            self.unload_adapter(name)

    @abstractmethod
    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`mezo.engines.workers.worker.handle(model, operation, arguments)` in every tensor-parallel worker, rank by
        rank.

        Does not flush the cache: the caller does, after changing weights.
        """

    @abstractmethod
    def flush(self) -> None:
        """Forget every cached key and value, of the base model and of all adapters."""

    @abstractmethod
    def close(self) -> None:
        """End the engine and give its memory back; calling it again does nothing."""


def core_ranges(parts: int) -> str:
    """The cores of this process shared out evenly: "0-3|4-7"."""
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // parts)
    ranges = [cores[i * share % len(cores) :][:share] for i in range(parts)]
    return "|".join(f"{own[0]}-{own[-1]}" for own in ranges)


class Names:
    """The adapters of one engine: a name is loaded at most once, and used only while it is loaded."""

    def __init__(self) -> None:
        self._ever: set[str] = set()
        self.loaded: set[str] = set()

    def take(self, name: str) -> None:
        """Raises MezoError if the name was ever taken."""
        if name in self._ever:
            raise MezoError(
                f"adapter {name!r} was loaded into this engine before: keys and values cached under that name "
                "are of the earlier one; load it under a name that was never used"
            )
        self._ever.add(name)
        self.loaded.add(name)

    def drop(self, name: str) -> None:
        self.need(name)
        self.loaded.remove(name)

    def need(self, name: str | None) -> None:
        """Raises MezoError unless the name is None or loaded."""
        if name is not None and name not in self.loaded:
            held = ", ".join(sorted(self.loaded)) or "none"
            raise MezoError(f"no adapter {name!r} is loaded in this engine; it has: {held}")
