"""A run's first words: who is there, what is shared among them, and that all mean the same run."""

from collections.abc import Callable, Mapping
from typing import Any

import mezo
from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.engines.base import Engine
from mezo.engines.registry import is_served
from mezo.errors import MezoError
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.parallel import work
from mezo.parallel.checks import agree
from mezo.parallel.engine import ParallelEngine
from mezo.parallel.environment import launched
from mezo.parallel.group import ProcessGroup, join
from mezo.parallel.interrupts import SharedInterrupts
from mezo.util.interrupts import Interrupts
from mezo.weights.weights import Weights

# Of the settings: where a process finds its files, and what no number depends on.
_OWN = ("model", "data", "snapshot_every")


def group_for(config: MeZOConfig) -> ProcessGroup:
    """The processes of this run; this one alone unless torchrun started it.

    Raises MezoError if they do not find each other, or the config cannot be run so.
    """
    if is_served(config):
        if launched():
            raise MezoError(
                f"engine {config.engine!r} has processes of its own (--tp): start mezo without torchrun, or use "
                "--engine transformers"
            )
        return ProcessGroup()
    check_combination(config)
    return join(config.tensor_parallel, config.rank_timeout, cuda=_on_cuda(config.device))


def _on_cuda(device: str) -> bool:
    if not launched() or device not in ("auto", "cuda"):
        return False
    import torch

    return torch.cuda.is_available()


def settled(
    config: MeZOConfig, group: ProcessGroup, *, resuming: bool, note: Callable[[str], None]
) -> MeZOConfig:
    """The config with what "auto" means here, so that a resumed run means it too, on any number of processes.

    Raises MezoError for what the processes cannot share.
    """
    batches, n = config.gradient_accumulation, max(config.num_directions, config.row_directions)
    split = config.parallel
    if split == "auto":
        split = "data" if resuming else work.choose(batches, n, group.copies)
    _check_walk(config, split, group.copies)
    if group.size == 1 or resuming:
        return config
    if still := work.idle(split, batches, n, group.copies):
        note(
            f"warning: {still} of {group.copies} processes have nothing to do: a step has "
            f"gradient_accumulation={batches} microbatches and {n} direction{'s' if n > 1 else ''}, and parallel={split!r}"
        )
    changes: dict[str, Any] = {"parallel": split}
    if group.tensor > 1:
        changes["snapshot_every"] = 0  # a snapshot would be of one part; a resumed run replays
    return config.model_copy(update=changes)


def _check_walk(config: MeZOConfig, split: work.Split, copies: int) -> None:
    """Weights that are moved to a probe and back are rounded on the way: all copies have to visit the same probes."""
    if config.memory == "materialize" or copies == 1:
        return
    if split != "data" or config.gradient_accumulation % copies:
        raise MezoError(
            f"memory={config.memory!r} moves the weights to each probe and back, which rounds them, so all {copies} copies "
            f"have to visit the same probes; found parallel={split!r} and gradient_accumulation="
            f"{config.gradient_accumulation}: use --memory materialize, or --parallel data with a --gradient-accumulation "
            f"that {copies} divides"
        )


def around(engine: Engine, weights: Weights, group: ProcessGroup, config: MeZOConfig) -> Engine:
    """`engine` as one of the group's; itself where that changes nothing.

    One process that goes on with a run of several evaluates as they did, direction by direction.
    """
    split: work.Split = "data" if config.parallel == "auto" else config.parallel
    if group.size == 1 and split == "data":
        return engine
    return ParallelEngine(engine, weights, group, split, check_every=config.checksum_every)


def interrupts_for(engine: Engine) -> Interrupts:
    if isinstance(engine, ParallelEngine) and engine.group.size > 1:
        return SharedInterrupts(engine.signals)
    return Interrupts()


def sent(engine: Engine) -> str:
    """For people: how little went between the processes; nothing where there was one."""
    if not isinstance(engine, ParallelEngine) or engine.group.size == 1 or not engine.steps:
        return ""
    shared = "directions and data" if engine.split == "both" else engine.split
    return (
        f"{engine.group.size} processes shared {shared}: each sent {engine.bytes_a_step:.1f} bytes a step"
        + (f" (and sums inside the model, cut into {engine.group.tensor})" if engine.group.tensor > 1 else "")
    )


def check_alike(
    group: ProcessGroup,
    config: MeZOConfig,
    base_fingerprint: str,
    identity: Mapping[str, Any],
    data: Mapping[str, str | None],
) -> None:
    """Raises MezoError, before anything is written, if the processes are not of one run."""
    settings = {
        f"setting {name}": value for name, value in config.model_dump(mode="json").items() if name not in _OWN
    }
    agree(
        group,
        {
            "version of mezo": mezo.__version__,
            "noise stream": NOISE_VERSION,
            **settings,
            "base model (fingerprint of its weights)": base_fingerprint,
            **{f"base model's {part}": str(value) for part, value in identity.items()},
            **{f"{split} examples": what for split, what in data.items()},
        },
    )


def check_state(group: ProcessGroup, first: int, state: Any) -> None:
    """Raises MezoError if a resumed run stands elsewhere for some: they read different folders."""
    agree(group, {"first step to do (do all see the same RUN?)": first, "estimator's state": repr(state)})
