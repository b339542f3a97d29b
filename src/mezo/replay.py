"""Base weights + trajectory -> the run's final weights, bit for bit."""

from collections.abc import Iterator
from pathlib import Path

from mezo import noise, trajectory
from mezo.algorithm import draw_of, update_of
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators import Estimator
from mezo.events import Observer
from mezo.models import load
from mezo.noise.spec import VERSION as NOISE_VERSION
from mezo.run import RunFolder
from mezo.setup import directions_at, estimator_for, learning_rate, optimizer_for
from mezo.tuning import save, tune
from mezo.types import Update
from mezo.weights import fingerprint


def replay(
    run: Path | str, *, model: str | None = None, output: Path | str, observer: Observer | None = None
) -> Path:
    """Make the final weights of a run again, without data and without a forward pass.

    run: a RUN folder, or a trajectory file. model: the base model; by default the one the run names.
    output: a new folder, which gets model/ or adapter/ as RUN has it.

    Returns the folder written. Raises MezoError if the base is not the run's, the trajectory is
    damaged, or `output` holds something already.
    """
    run, observer = Path(run), observer or Observer()
    recorded = trajectory.read(run if run.is_file() else RunFolder.open(run).trajectory)
    header = recorded.header
    if header.get("noise") != NOISE_VERSION:
        raise MezoError(
            f"{run}: made with noise stream {header.get('noise')!r}, this mezo has {NOISE_VERSION}"
        )
    if not isinstance(header.get("config"), dict):
        raise MezoError(f"{run}: the trajectory's header has no config")
    config = MeZOConfig.build(**header["config"])
    target = Path(output) / ("adapter" if config.saves_adapter else "model")
    if target.exists():
        raise MezoError(f"{target} exists already: choose another --output")
    name = model or config.model
    loaded = load(name, config.dtype, config.device, config.trust_remote_code, observer.on_note)
    found = fingerprint(loaded.model.named_parameters())
    if found != header.get("base_fingerprint"):
        raise MezoError(
            f"{name} is not the base model of this run: its weights' fingerprint is {found}, "
            f"the run's base has {header.get('base_fingerprint')}"
        )
    noise.announce = observer.on_note
    tuned, weights = tune(loaded.model, config)
    optimizer, estimator = optimizer_for(config), estimator_for(config, weights)
    state = optimizer.init(weights)
    for update in updates(config, estimator, recorded):
        state = optimizer.apply_(weights, state, update)
    if recorded.dropped_bytes:
        observer.on_note(
            f"dropped {recorded.dropped_bytes} bytes of a torn tail; replayed {len(recorded)} whole steps"
        )
    Path(output).mkdir(parents=True, exist_ok=True)
    save(tuned, loaded.tokenizer, target)
    return target


def updates(config: MeZOConfig, estimator: Estimator, recorded: trajectory.Trajectory) -> Iterator[Update]:
    """The run's updates, rebuilt from the config and the projected gradients."""
    for step, record in enumerate(recorded.records):
        n = directions_at(config, step)
        grads = [float(g) for g in record[: estimator.width(n)]]
        yield update_of(estimator, draw_of(config.seed, step, n), learning_rate(config, step), grads)
