"""A fine-tune as one small file: the id of its base model, and the trajectory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.identity import check_description
from mezo.models.load import describe
from mezo.resume.replay_steps import configs_of
from mezo.resume.start_file import carried
from mezo.resume.trajectory_tools import file_of, write
from mezo.runs import trajectory
from mezo.tuning.started import base_of
from mezo.util.plugins import REPLAYED, allowing


def publish(run: Path | str, output: Path | str, *, base: str | None = None) -> Path:
    """Write RUN's trajectory as a file that `load_finetuned` and `mezo replay` take on another machine.

    base: the base model's public id; by default the run's own name for it. Paths of data are left out.

    Raises MezoError if the run has no step, its base is a local folder and no `base` is given, that folder has
    changed, or `output` exists.
    """
    found = trajectory.read(file_of(run))
    config = configs_of(found.header)[-1][1]
    if not len(found):
        raise MezoError(f"{run}: has no step yet to publish")
    if base_of(config.model) != config.model:
        raise MezoError(
            f"{run}: starts from the adapter {config.model}, which a trajectory does not hold: give others the tuned adapter itself "
            "(mezo push)"
        )
    name = base or config.model
    if base is None and os.path.exists(name):
        raise MezoError(
            f"{run}: its base model is {name}, a folder that others do not have; give its hub id with --base"
        )
    if os.path.exists(config.model):  # what others load by its id is compared there
        described = describe(base_of(config.model))
        check_description(config.model, found.header.get("model"), described.config, described.tokenizer)
    header = _shared_part(found.header, name)
    if "start" in header:
        header["start"] = carried(file_of(run), found.header)
    if "branches" in header:
        header["branches"] = [_shared_part(branch, name) for branch in header["branches"]]
    if isinstance(parent := header.get("parent"), dict):
        header["parent"] = {key: value for key, value in parent.items() if key != "path"}
    return write(Path(output), header, found.records)


def _shared_part(part: dict[str, Any], base: str) -> dict[str, Any]:
    """A header, or a branch in it, with the settings and the plugins that a replay reads."""
    kept = {**part, "config": _shared(part["config"], base)}
    if "plugins" in part:
        kept["plugins"] = {k: v for k, v in part["plugins"].items() if k.partition(" ")[0] in REPLAYED}
    return kept


def _shared(config: dict[str, Any], base: str) -> dict[str, Any]:
    """The settings that a replay reads, without those of this machine alone."""
    own = ("data", "device", "engine", "server", "server_args", "tensor_parallel")
    return {**{key: value for key, value in config.items() if key not in own}, "model": base}


def load_finetuned(
    file: Path | str,
    *,
    model: str | None = None,
    observer: Observer | None = None,
    trust_remote_code: bool = False,
    plugins: Sequence[str] = (),
) -> Any:
    """The fine-tuned model of a published file, or of a RUN, made in memory from its base.

    Args:
        file: a trajectory, or a RUN folder.
        model: the base model; by default the one that the file names.
        observer: called with notes and with the progress of the replay.
        trust_remote_code: run Python code that the base brings along, once its files are known to be those of the
            run. Whatever the file says of that is ignored.
        plugins: module:name or file.py:name of estimators, optimizers and tuning modes that the file may name.

    Returns:
        (model, tokenizer), the model in evaluation mode.

    Raises:
        MezoError: the file is damaged, or the base is another model than the run's.

    Example:
        >>> import mezo
        >>> _ = mezo.mezo_finetune("./my-model", "tickets.jsonl", num_steps=3, output="runs/shared")
        >>> model, tokenizer = mezo.load_finetuned("runs/shared")
    """
    from mezo.resume.replay import replayed

    with allowing(plugins):
        tuned, tokenizer = replayed(
            Path(file), model=model, observer=observer, trust_remote_code=trust_remote_code
        )
    return tuned.eval(), tokenizer
