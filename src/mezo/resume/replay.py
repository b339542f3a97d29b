"""Base weights + trajectory -> the run's final weights, bit for bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.identity import changes, check_code, identity_of
from mezo.models.load import LoadedModel
from mezo.models.locate import folder_of
from mezo.noise import announced
from mezo.resume.compatibility import check_branches, check_plugins
from mezo.resume.replay_steps import Folding, check_noise, configs_of
from mezo.resume.start_file import rows_of
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.trajectory import Trajectory
from mezo.tuning import save, tune
from mezo.tuning.label_rows import LabelRows
from mezo.tuning.started import load_start
from mezo.util.plugins import REPLAYED, allowing
from mezo.weights.fingerprint import fingerprint_of


def replay(
    run: Path | str,
    *,
    model: str | None = None,
    output: Path | str,
    observer: Observer | None = None,
    trust_remote_code: bool = False,
    plugins: Sequence[str] = (),
) -> Path:
    """Make the final weights of a run again, without data and without a forward pass.

    Args:
        run: a RUN folder, or a trajectory file.
        model: the base model; by default the one that the run names.
        output: a new folder, which gets model/ or adapter/ as the run has it. An interrupted replay leaves
            nothing there.
        observer: hears of notes and of the progress.
        trust_remote_code: run Python code of the base model, after its files are compared with the run's. What
            the trajectory says about this is ignored.
        plugins: module:name or file.py:name of estimators, optimizers and tuning modes that the run may name.

    Returns:
        The folder of the weights.

    Raises:
        MezoError: the base model is not the run's, the trajectory is damaged, or `output` holds weights.
    """
    with allowing(plugins):
        return _replayed_to(Path(output), Path(run), model, observer or Observer(), trust_remote_code)


def _replayed_to(output: Path, run: Path, model: str | None, observer: Observer, trusting: bool) -> Path:
    found = _recorded(run)
    target = output / ("adapter" if found.config.saves_adapter else "model")
    if target.exists():
        raise MezoError(f"{target} exists already: choose another --output")
    tuned, tokenizer = _made(found, model, observer, trusting)
    output.mkdir(parents=True, exist_ok=True)
    save(tuned, tokenizer, target)
    return target


def replayed(
    run: Path, *, model: str | None = None, observer: Observer | None = None, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """The same as `replay`, in memory: the model, with its adapter if it has one, and the tokenizer."""
    return _made(_recorded(run), model, observer or Observer(), trust_remote_code)


class _Recorded(NamedTuple):
    trajectory: Trajectory
    config: MeZOConfig
    rows: LabelRows | None  # that it starts from


def _recorded(run: Path) -> _Recorded:
    recorded = trajectory.read(run if run.is_file() else RunFolder.open(run).trajectory)
    check_noise(run, recorded.header)
    try:
        config = configs_of(recorded.header)[-1][1]
    except MezoError as error:
        raise MezoError(f"{run}: {error}") from None
    check_plugins(run, recorded.header, recorded.header["config"], REPLAYED)
    check_branches(run, recorded.header)
    return _Recorded(recorded, config, rows_of(run, recorded.header))


def _made(made_of: _Recorded, model: str | None, observer: Observer, trusting: bool) -> tuple[Any, Any]:
    recorded, config, rows = made_of
    name, header = model or config.model, recorded.header
    if trusting:
        check_code(name, folder_of(name, code=True), header.get("model"))
    loaded = load_start(
        name, config.dtype, config.device, trusting, observer.on_note, quantize=config.quantize
    )
    found = fingerprint_of(loaded.model)
    if found != header.get("base_fingerprint"):
        raise MezoError(
            f"{name} is not the base model of this run: its weights' fingerprint is {found}, "
            f"the run's base has {header.get('base_fingerprint')}"
        )
    _check_identity(name, header.get("model"), loaded, observer)
    with announced(observer.on_note):
        tuned, weights = tune(loaded.model, config, rows)
        Folding(header, weights).take(recorded.records, observer.on_replay)
    if recorded.dropped_bytes:
        observer.on_note(
            f"dropped {recorded.dropped_bytes} bytes of a torn tail; replayed {len(recorded)} whole steps"
        )
    return tuned, loaded.tokenizer


def _check_identity(name: str, recorded: Any, loaded: LoadedModel, observer: Observer) -> None:
    """Raises MezoError if the base has the run's weights, but another config or tokenizer."""
    differing = changes(recorded, identity_of(loaded))
    if differing is None:
        observer.on_note(
            "a run of an earlier version: whether its base's config and tokenizer are the same is not known"
        )
    elif differing:
        shown = "; ".join(f"{d.what}: the run has {d.recorded}, now {d.found}" for d in differing)
        raise MezoError(
            f"{name} has the weights of this run's base model, and is not it ({shown}); undo the change"
        )
