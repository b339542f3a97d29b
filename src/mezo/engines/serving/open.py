"""Start a serving engine and put an Engine around it, as the config asks."""

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from typing import Any

from peft import LoraConfig

from mezo import estimators
from mezo.config import MeZOConfig
from mezo.engines.output_text import OutputText
from mezo.engines.registry import ENGINES, KEEP, serving
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import Backend, EngineSpec, LoraSpec
from mezo.engines.serving.engine import Placement, ServingEngine
from mezo.engines.serving.full import InWorkers
from mezo.engines.serving.full_adapters import RankOneAdapters, rank_one_config, takes_adapters
from mezo.engines.serving.lora import Adapters
from mezo.engines.serving.meta_model import Outline
from mezo.engines.workers.group import Workers, tensors_of
from mezo.objectives import Objective, OutputObjective
from mezo.optimizers import Optimizer
from mezo.tuning import tune
from mezo.util.plugins import find
from mezo.weights.rank_one import RankOne
from mezo.weights.tunable import Tunable, canonical
from mezo.weights.weights import Weights

# Places for adapters in one batch of an engine's; those without one wait for the next. Small ones get as many as fit into
# these bytes of the device.
_FEWEST_PLACES, _MOST_PLACES, _BYTES = 8, 64, 1 << 28


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

    directions: n of n-SPSA at most. The model has weights only where they are tuned in this process (LoRA).
    """
    model, weights = tune(outline.model, config)
    rule, _ = optimizer(), estimators.build(config, weights)  # what they refuse is said before the start
    settings: dict[str, Any] | None = None
    if config.tuning == "lora":
        settings = adapter_config(model)
    elif outline.backend is None and serving(config.engine).both and takes_adapters(model, weights):
        settings = plain_config(rank_one_config(weights))
    lora = None if settings is None else lora_spec(settings, weights, at_once=2 * directions)
    if config.engine == "sglang" and isinstance(objective, OutputObjective) and config.writing.draws:
        _say_how_it_draws(config, note)
    backend = outline.backend or open_backend(spec_of(config, outline, lora), config.engine, note)
    try:
        placement: Placement
        if settings is not None and config.tuning == "lora":
            placement = Adapters(backend, weights, rule, settings)
        else:
            placement = _in_workers(config, outline, backend, weights, rule, settings, note)
    except BaseException:
        backend.close()
        raise
    engine = ServingEngine(
        backend,
        placement,
        objective,
        text=OutputText(outline.tokenizer, getattr(outline.model, "generation_config", None)),
        writing=config.writing,
    )
    return model, weights, engine


def _say_how_it_draws(config: MeZOConfig, note: Callable[[str], None]) -> None:
    if not config.server_args.get("enable_deterministic_inference"):
        note(
            "warning: SGLang heeds the seeds of outputs in its deterministic inference alone (on a GPU: --server-args "
            "enable_deterministic_inference=true): here outputs do not repeat, and the signs of a direction draw apart"
        )


def open_backend(spec: EngineSpec, engine: str, note: Callable[[str], None]) -> Backend:
    """An engine of its own process, or the way to running servers."""
    if serving(engine).package is not None:
        return subprocess.start(engine, spec, note=note)
    if engine not in ENGINES:
        start, settings = find("engine", engine, {})
        return start(spec, note, **settings)
    return import_module(f"mezo.engines.{engine}.backend").start(spec, note)


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
    return plain_config(next(iter(model.peft_config.values())))


def plain_config(config: LoraConfig) -> dict[str, Any]:
    """A peft config as JSON values, for adapters that are asked and not trained."""
    found = config.to_dict()
    return {key: _plain(value) for key, value in found.items()} | {"inference_mode": True}


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    return value.value if isinstance(value, Enum) else value


def lora_spec(settings: dict[str, Any], weights: Weights, *, at_once: int) -> LoraSpec:
    """The room that an engine needs for adapters of these settings. at_once: probes of a step."""
    matrices = sorted({_module(tunable.name) for tunable in weights.tunables})
    size = 4 * sum(_adapter_elements(tunable) for tunable in weights.tunables)
    places = max(_FEWEST_PLACES, min(_MOST_PLACES, _BYTES // size))
    return LoraSpec(settings["r"], min(at_once, places), tuple(matrices))


def _module(name: str) -> str:
    """The last name of the module that a weight, or a factor of an adapter over it, belongs to."""
    return name.partition(".lora_")[0].removesuffix(".weight").rpartition(".")[2]


def _adapter_elements(tunable: Tunable) -> int:
    """What of an adapter is made of a tuned tensor: the two vectors of its noise, or itself."""
    low = tunable.low_rank
    return (
        low.rows + low.columns
        if isinstance(low, RankOne) and ".lora_" not in tunable.name
        else tunable.tensor.numel()
    )


def _in_workers(
    config: MeZOConfig,
    outline: Outline,
    backend: Backend,
    weights: Weights,
    optimizer: Optimizer,
    adapters: dict[str, Any] | None,
    note: Callable[[str], None],
) -> InWorkers:
    """adapters: the config of those that are the probes; None: the workers walk to them."""
    model, tuned = outline.model, {tunable.name for tunable in weights.tunables}
    for name, tensor in model.named_parameters():
        tensor.requires_grad_(canonical(name) in tuned)
    workers = Workers(
        backend.call_workers,
        tensors_of(model),
        optimizer=optimizer,
        noise=config.noise,
        keep=KEEP[config.memory] if adapters is None else "alone",
        checkpoint=str(outline.folder.absolute()),
        workers=config.tensor_parallel,
    )
    model.requires_grad_(False)
    note(workers.summary())

    def checkpoint() -> tuple[Any, Weights]:
        return tune(outline.load().model, config)

    if adapters is None:
        return InWorkers(backend, workers, optimizer, checkpoint, note)
    return RankOneAdapters(backend, workers, optimizer, checkpoint, note, weights=weights, config=adapters)
