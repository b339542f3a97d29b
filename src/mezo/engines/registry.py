"""Which engine a config asks for, whether it can do what is asked, and how a serving one is opened.

Everything a person can get wrong is said before anything is loaded or started.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple

from mezo import estimators
from mezo.config import MeZOConfig
from mezo.engines import host
from mezo.engines.backend import Backend, EngineSpec, LoraSpec
from mezo.engines.keeping import Keep
from mezo.engines.outline import Outline
from mezo.engines.serving import Placement, ServingEngine
from mezo.engines.serving_full import InWorkers
from mezo.engines.serving_lora import Adapters
from mezo.engines.workers import Workers, tensors_of
from mezo.errors import MezoError
from mezo.objectives import Objective
from mezo.optimizers import Optimizer
from mezo.registry import look_up
from mezo.tuning import tune
from mezo.weights import Weights, canonical

TRANSFORMERS = "transformers"
_MOST_ADAPTERS = 8  # in one batch of an engine's; further ones wait for a place in the next


class _Kind(NamedTuple):
    package: str | None  # what must be installed; None: nothing
    full: bool  # whether all parameters can be tuned on it


SERVING = {
    "sglang": _Kind("sglang", full=True),
    "vllm": _Kind("vllm", full=True),
    "http": _Kind(None, full=False),
}
_KEEP: dict[str, Keep] = {"materialize": "auto", "regenerate": "walk"}


def is_served(config: MeZOConfig) -> bool:
    """Whether the config's engine holds the model outside of this process."""
    return config.engine != TRANSFORMERS


def check(config: MeZOConfig) -> None:
    """Raises MezoError for an engine that there is not, or that cannot do what the config asks of it."""
    look_up({TRANSFORMERS: None, **SERVING}, config.engine, "engine")
    if not is_served(config):
        _check_plain(config)
        return
    kind, name = SERVING[config.engine], config.engine
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise MezoError(
            f"engine {name!r} starts its own processes (--tp), and this run is one of several: start it without "
            "torchrun"
        )
    if config.tuning not in ("lora", "full") or (config.tuning == "full" and not kind.full):
        able = "lora and full" if kind.full else "lora"
        raise MezoError(
            f"engine {name!r} cannot tune tuning={config.tuning!r}; it tunes {able}: use one of them, or "
            "--engine transformers"
        )
    if bool(config.server) != (name == "http"):
        raise MezoError(
            "engine 'http' needs the addresses of running servers: --server http://HOST:PORT[,...]"
            if name == "http"
            else f"--server is for engine http, and the engine is {name!r}: use --engine http, or leave it out"
        )
    if name == "http" and config.tensor_parallel != 1:
        raise MezoError(
            f"tensor_parallel={config.tensor_parallel}: running servers have their own; leave it out"
        )
    if config.activation_cache_mb:
        raise MezoError(f"activation_cache_mb is for engine transformers: leave it out with engine {name!r}")
    _check_method(config)
    _check_installed(name, kind.package)


def _check_plain(config: MeZOConfig) -> None:
    for field, flag in (
        ("server", "--server"),
        ("server_args", "--server-args"),
    ):
        value = getattr(config, field)
        if value != MeZOConfig.model_fields[field].default:
            raise MezoError(
                f"{field}={value!r} ({flag}) is for serving engines ({', '.join(SERVING)}), and the engine is "
                "'transformers': choose one with --engine, or leave it out"
            )


def _check_method(config: MeZOConfig) -> None:
    if config.tuning == "lora":
        if config.memory != "materialize":
            raise MezoError(
                f"memory={config.memory!r} is for engine transformers: an adapter's probes are adapters of their own"
            )
        return
    if config.memory not in _KEEP:
        raise MezoError(
            f"memory={config.memory!r} is for engine transformers; engine {config.engine!r} has materialize (theta "
            "is kept once more) and regenerate (the paper's walk)"
        )
    if config.noise == "low-rank":
        raise MezoError(
            f"noise='low-rank' of all parameters is for engine transformers: engine {config.engine!r} has gaussian "
            "and rademacher, and low-rank for --tuning lora"
        )
    if config.layer_scaling != "none":
        raise MezoError(
            f"layer_scaling={config.layer_scaling!r} needs the norms of all weights, which engine "
            f"{config.engine!r} holds: use --engine transformers or --tuning lora"
        )


def _check_installed(name: str, package: str | None) -> None:
    variable = f"MEZO_{name.upper()}_PYTHON"
    if package is None or os.environ.get(variable):
        return
    if importlib.util.find_spec(package) is None:
        raise MezoError(
            f"engine {name!r} needs the package {package}, which is not installed for {sys.executable}: install it "
            f"into an environment of its own as docs/engines.md says, and set {variable} to that one's python"
        )


def open_served(
    config: MeZOConfig,
    outline: Outline,
    objective: Objective,
    optimizer: Callable[[], Optimizer],
    *,
    directions: int,
    note: Callable[[str], None],
) -> tuple[Any, Weights, ServingEngine]:
    """Start the config's engine: the model made ready for tuning, its tuned tensors, and the engine.

    directions: n of n-SPSA at most. The model has weights where they are tuned in this process (LoRA).
    """
    model, weights = tune(outline.model, config)
    rule, _ = optimizer(), estimators.build(config, weights)  # what they refuse is said before the start
    settings = adapter_config(model) if config.tuning == "lora" else None
    lora = None if settings is None else lora_spec(settings, weights, at_once=2 * directions)
    backend = open_backend(spec_of(config, outline, lora), config.engine, note)
    try:
        placement: Placement
        if settings is not None:
            placement = Adapters(backend, weights, rule, settings)
        else:
            placement = _in_workers(config, outline, backend, weights, rule, note)
    except BaseException:
        backend.close()
        raise
    engine = ServingEngine(
        backend,
        placement,
        objective,
        tokenizer=outline.tokenizer,
        max_new_tokens=config.max_new_tokens,
    )
    return model, weights, engine


def open_backend(spec: EngineSpec, engine: str, note: Callable[[str], None]) -> Backend:
    """An engine of its own process, or the way to running servers."""
    if SERVING[engine].package is not None:
        return host.start(engine, spec, note=note)
    return import_module(f"mezo.engines.{engine}").start(spec, note)


def spec_of(config: MeZOConfig, outline: Outline, lora: LoraSpec | None) -> EngineSpec:
    text = outline.model.config.get_text_config()
    longest = config.max_length + config.max_new_tokens + 1
    return EngineSpec(
        model=str(outline.folder.absolute()),
        dtype=config.dtype,
        device=config.device.partition(":")[0],
        tensor_parallel=config.tensor_parallel,
        max_length=min(longest, getattr(text, "max_position_embeddings", None) or longest),
        lora=lora,
        full=config.tuning == "full",
        cache=config.enable_kv_cache_optimization,
        trust_remote_code=config.trust_remote_code,
        servers=config.server or (),
        server_args=config.server_args,
    )


def adapter_config(model: Any) -> dict[str, Any]:
    """What peft writes to adapter_config.json, as JSON values."""
    found = next(iter(model.peft_config.values())).to_dict()
    return {key: _plain(value) for key, value in found.items()} | {"inference_mode": True}


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    return value.value if isinstance(value, Enum) else value


def lora_spec(settings: dict[str, Any], weights: Weights, *, at_once: int) -> LoraSpec:
    """The room that an engine needs for adapters of these settings. at_once: probes of a step."""
    matrices = sorted({tunable.name.split(".")[-3] for tunable in weights.tunables})
    return LoraSpec(
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        targets=tuple(settings["target_modules"]),
        at_once=min(at_once, _MOST_ADAPTERS),
        matrices=tuple(matrices),
    )


def _in_workers(
    config: MeZOConfig,
    outline: Outline,
    backend: Backend,
    weights: Weights,
    optimizer: Optimizer,
    note: Callable[[str], None],
) -> InWorkers:
    model, tuned = outline.model, {tunable.name for tunable in weights.tunables}
    for name, tensor in model.named_parameters():
        tensor.requires_grad_(canonical(name) in tuned)
    workers = Workers(
        backend.call_workers,
        tensors_of(model),
        optimizer=optimizer,
        noise=config.noise,
        keep=_KEEP[config.memory],
        checkpoint=str(outline.folder.absolute()),
        workers=config.tensor_parallel,
    )
    model.requires_grad_(False)
    note(workers.summary())
    return InWorkers(backend, workers, optimizer, lambda: tune(outline.load().model, config), note)
