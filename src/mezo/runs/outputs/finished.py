"""The weights of a finished run, and the settings that say what they belong to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.objectives import OBJECTIVES
from mezo.runs.folder import RunFolder
from mezo.tasks import TASKS
from mezo.tuning.started import base_of
from mezo.util.settings_text import values_of

# What is needed of a run's settings to load its weights. The others may ask for code or servers, which a file cannot.
_NEEDED = ("model", "dtype", "quantize", "tuning", "chat_template")
_OF_OUTPUTS = ("stop", "prefill")


@dataclass(frozen=True)
class FinishedRun:
    """A run that has left weights.

    Args:
        run: its folder.
        base: the model that it started from, as its settings name it; where that is an adapter, the adapter's base.
        dtype: of its weights.
        weights: RUN/adapter or RUN/model.
        is_adapter: which of the two.
        is_prefix: whether the adapter is a prefix.
        chat_template: that it used in place of the tokenizer's own.
        quantize: how its base was held in few bits.
        stop, prefill: where its outputs ended, and what they began with; none of a run whose objective reads no outputs.
    """

    run: RunFolder
    base: str
    dtype: str
    weights: Path
    is_adapter: bool
    is_prefix: bool
    chat_template: str | None
    quantize: str | None = None
    stop: tuple[str, ...] = ()
    prefill: str = ""

    @classmethod
    def open(cls, folder: Path | str) -> "FinishedRun":
        """The run in a folder.

        Raises:
            MezoError: the folder holds no run, or a run without weights.
        """
        run = RunFolder.open(folder)
        values = values_of(run.config)
        needed = (*_NEEDED, *(_OF_OUTPUTS if _reads_outputs(values) else ()))
        config = MeZOConfig.recorded({name: values[name] for name in needed if name in values})
        is_adapter = config.saves_adapter
        weights = run.adapter if is_adapter else run.model
        if not (weights / ("adapter_config.json" if is_adapter else "config.json")).is_file():
            raise MezoError(
                f"{run.path}: has no weights yet (no {weights.name}/): the run has not finished; "
                f"`mezo train --resume {run.path}` goes on with it"
            )
        is_prefix = config.tuning == "prefix"
        return cls(
            run,
            base_of(config.model),
            config.dtype,
            weights,
            is_adapter,
            is_prefix,
            config.chat_template,
            config.quantize,
            config.stop if len(needed) > len(_NEEDED) else (),
            config.prefill,
        )


def _reads_outputs(values: Mapping[str, Any]) -> bool:
    """Whether the objective of these settings is of what the model writes."""
    name = values.get("objective", "auto")
    if name == "auto":
        task = TASKS.get(str(values.get("task")).partition("(")[0])
        name = None if task is None else task.objective
    return isinstance(name, str) and name.partition("(")[0] not in OBJECTIVES


def is_run(path: Path | str) -> bool:
    """Whether a path is a run's folder, and not a model's."""
    folder = Path(os.path.expanduser(path))
    return (folder / "config.yaml").is_file() and not (folder / "config.json").is_file()
