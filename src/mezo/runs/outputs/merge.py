"""An adapter (LoRA, norms) put into its base model: one model that needs no peft."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mezo.config import MeZOConfig
from mezo.data.chat_templates import with_chat_template
from mezo.errors import MezoError
from mezo.models.load import kind_of, load
from mezo.models.quantised import is_quantised
from mezo.runs.card import weights_card
from mezo.runs.metrics_file import read_metrics
from mezo.runs.outputs.finished import FinishedRun
from mezo.runs.summary import read_summary
from mezo.tuning import save, with_adapter
from mezo.tuning.head import untie
from mezo.tuning.label_rows import has_rows
from mezo.util.settings_text import values_of

Note = Callable[[str], None]


@dataclass
class EndedRun:
    """What the card needs to know of a run that is over."""

    config: MeZOConfig
    interrupted: bool
    seconds: float
    peak_memory_bytes: int


def merge(run: Path | str, *, output: Path | str | None = None, note: Note | None = None) -> Path:
    """Put a run's adapter (LoRA, norms) into its base model, and save the whole model.

    Args:
        run: a RUN folder.
        output: a new folder; by default RUN/merged.
        note: called for slow things, such as the first fetch of the embedded model.

    Returns:
        The folder: weights in the run's dtype, tokenizer, generation config and card.

    Raises:
        MezoError: the run has no adapter of LoRA or norms, its base is not available, or the folder exists.

    Example:
        >>> from mezo.runs.outputs.merge import merge
        >>> merge("runs/lora")  # doctest: +SKIP
        PosixPath('runs/lora/merged')
    """
    done = FinishedRun.open(run)
    target = Path(output) if output is not None else done.run.path / "merged"
    check_mergeable(done)
    if target.exists():
        raise MezoError(f"{target} exists already: choose another --output")
    loaded = load(done.base, done.dtype, "cpu", note=note, quantize=done.quantize)
    if is_quantised(loaded.model):
        raise MezoError(
            f"{done.run.path}: its base is held in few bits, which would round the adapter away: load the two with peft, side "
            "by side"
        )
    with_chat_template(loaded.tokenizer, done.chat_template)
    model = with_adapter(loaded.model, done.weights)
    if has_rows(head := model.get_output_embeddings()):  # of label words: as outputs, and not as inputs
        untie(loaded.model, head.base_layer)
    model = model.merge_and_unload()
    kind = kind_of(model.config, done.base)
    card = weights_card(done.run, outcome_of(done), kind=kind, merged=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    save(model, loaded.tokenizer, target, card)
    return target


def check_mergeable(done: FinishedRun) -> None:
    """Raises MezoError for a run without an adapter, and for a prefix, which is no part of any weight."""
    if not done.is_adapter:
        raise MezoError(f"{done.run.path}: nothing to merge: {done.weights} is a whole model already")
    if done.is_prefix:
        raise MezoError(
            f"{done.run.path}: a prefix is keys and values beside the weights and cannot be merged into them: "
            "load it with peft, or tune with --tuning lora"
        )


def outcome_of(done: FinishedRun) -> EndedRun:
    """From the files of a run, what its card says."""
    config = MeZOConfig.recorded(values_of(done.run.config))  # code that it names is not run for that
    summary = read_summary(done.run.path)
    steps = read_metrics(done.run.metrics).steps
    return EndedRun(
        config,
        interrupted=bool(steps) and steps[-1].step + 1 < config.num_steps,
        seconds=summary.seconds if summary else 0.0,
        peak_memory_bytes=summary.peak_memory_bytes if summary else 0,
    )
