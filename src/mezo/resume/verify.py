"""Is a run what its trajectory says: its checksums, its settings, its metrics, and its weights."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.identity import fields_of
from mezo.resume.replay import replay
from mezo.resume.replay_steps import check_noise, configs_of
from mezo.resume.start_file import rows_of
from mezo.resume.trajectory_tools import file_of
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.trajectory import Trajectory
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_json

# Beside the tensors: what they are used as.
_DESCRIBING = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer.json")
_MOST = 256 << 20  # bytes of a tokenizer's file


def verify(
    run: Path | str,
    *,
    weights: bool = False,
    model: str | None = None,
    observer: Observer | None = None,
    trust_remote_code: bool = False,
) -> list[str]:
    """What was checked, a line each. Raises MezoError at the first check that fails.

    weights: replay the run (model: its base, by default the one it names) and compare the tensors byte for byte with
    RUN/model or RUN/adapter.
    """
    path = file_of(run)
    found = trajectory.read(path)
    config = configs_of(found.header)[-1][1]
    check_noise(path, found.header)
    torn = f" ({found.dropped_bytes} bytes of a torn tail left out)" if found.dropped_bytes else ""
    done = [f"checksums   {len(found)} steps sound{torn}"]
    if Path(run).is_dir():
        done += _beside(RunFolder(run), found, config)
    if weights:
        done.append(_weights(Path(run), config, model, observer, trust_remote_code))
    return done


def _beside(run: RunFolder, found: Trajectory, config: MeZOConfig) -> Iterator[str]:
    """The other files of the folder."""
    saved = MeZOConfig.read(run.config)
    unlike = [name for name in type(saved).model_fields if getattr(saved, name) != getattr(config, name)]
    if unlike:
        raise MezoError(
            f"{run.config}: its settings are not those of {run.trajectory.name}: {', '.join(unlike)} differ; "
            f"one of the two files was changed or is of another run"
        )
    yield f"settings    {run.config.name} as recorded"
    if rows_of(run.path, found.header) is not None:
        yield f"start       {run.start.name} as recorded"
    if run.metrics.is_file():
        yield _metrics(run, found)


def _metrics(run: RunFolder, found: Trajectory) -> str:
    compared = 0
    for record in read_metrics(run.metrics).steps:
        grads = np.array(record.projected_grads, dtype=np.float32)
        if not 0 <= record.step < len(found) or len(grads) > found.records.shape[1]:
            raise MezoError(
                f"{run.metrics}: has a step {record.step} of {len(grads)} gradients that {run.trajectory.name} lacks"
            )
        if not np.array_equal(grads, found.records[record.step, : len(grads)], equal_nan=True):
            raise MezoError(
                f"{run.metrics}: the gradients of step {record.step} are not those of {run.trajectory.name}"
            )
        compared += 1
    return f"metrics     {compared} steps as recorded"


def _weights(
    run: Path, config: MeZOConfig, model: str | None, observer: Observer | None, trusting: bool
) -> str:
    name = "adapter" if config.saves_adapter else "model"
    kept = run / name
    if not kept.is_dir():
        raise MezoError(f"{run}: holds no {name} to compare with; it is there once the run has ended")
    with tempfile.TemporaryDirectory(prefix="mezo-verify-") as folder:
        made = replay(run, model=model, output=folder, observer=observer, trust_remote_code=trusting)
        names = sorted(path.name for path in kept.glob("*.safetensors"))
        if not names or names != sorted(path.name for path in made.glob("*.safetensors")):
            raise MezoError(f"{kept}: its weights are not in the files that a replay writes")
        tensors = sum(_compare(kept / file, made / file) for file in names)
        for file in _DESCRIBING:
            _compare_description(kept / file, made / file)
    return f"weights     {tensors} tensors of {name}/ equal a replay, byte for byte"


def _compare_description(kept: Path, made: Path) -> None:
    """Raises MezoError for a field that a forward pass depends on, where a replay writes another."""
    if not made.is_file() or (not kept.is_file() and made.name == "generation_config.json"):
        return
    try:
        values = [fields_of(parse_json(read_text(path, most=_MOST))) for path in (kept, made)]
    except (OSError, ValueError, AttributeError) as error:
        raise MezoError(f"{kept}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    for name in sorted(values[0].keys() | values[1].keys()):
        before, now = (found.get(name) for found in values)
        if name != "base_model_name_or_path" and before != now:
            raise MezoError(
                f"{kept}: has {name}={before!r:.80}, expected {now!r:.80}: the file was changed after the run"
            )


def _compare(kept: Path, made: Path) -> int:
    """How many tensors: all are equal. Tensor by tensor, so that one of each is in memory at a time."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(kept, "pt") as left, safe_open(made, "pt") as right:
            names = sorted(left.keys())
            if names != sorted(right.keys()):
                raise MezoError(f"{kept}: has other tensors than a replay makes")
            for name in names:
                a, b = left.get_tensor(name), right.get_tensor(name)
                same = a.dtype == b.dtype and a.shape == b.shape
                if not same or not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                    raise MezoError(f"{kept}: {name} is not what the trajectory gives")
            return len(names)
    except (SafetensorError, OSError) as error:
        raise MezoError(f"{kept}: cannot be read: {' '.join(str(error).split())[:200]}") from None
