"""One run of a study, in its own process: trained, evaluated, measured."""

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import mezo
from mezo.ablation.run.folder import is_resumable
from mezo.ablation.run.outcome import Outcome, write_outcome
from mezo.ablation.run.peak_memory import StepPeak
from mezo.algorithm import draw_of
from mezo.build.schedule import directions_at
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.from_config import validation_set
from mezo.errors import MezoError
from mezo.estimators.base import Estimator, Wrapper
from mezo.events import EvalRecord, Observer, StepRecord
from mezo.runs.result import TrainResult
from mezo.runs.summary import Summary, write_summary
from mezo.tasks import task_for
from mezo.training.trainer import MeZOTrainer
from mezo.types import Draw, Probe


@dataclasses.dataclass(frozen=True)
class Counting(Wrapper):
    """An estimator that counts the probes of each step."""

    inner: Estimator
    asked: list[int] = dataclasses.field(default_factory=list, compare=False)  # probes of each step

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        probes = super().ask(draw, state)
        self.asked.append(len(probes))
        return probes


class _Log(Observer):
    """Prints the run's log, and follows the memory of its steps."""

    def __init__(self, folder: Path) -> None:
        self.peak = StepPeak(folder / "peaks.json")

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        print(summary)
        self.peak.begin()

    def on_note(self, text: str) -> None:
        print(text)

    def on_step(self, record: StepRecord) -> None:
        self.peak.stepped()

    def on_eval(self, record: EvalRecord) -> None:
        print(f"step {record.step}: {record.headline or ''} loss {record.loss:.4f}")
        self.peak.begin()


def trainer_for(
    config: MeZOConfig,
    evaluation_seed: int,
    metrics: Sequence[str],
    *,
    output: Path | None = None,
    observer: Observer | None = None,
) -> MeZOTrainer:
    """A trainer with the study's evaluation set, and `metrics` in addition to the task's own.

    output: an unfinished run in it is resumed, with the same numbers as an uninterrupted run.
    """
    trainer = MeZOTrainer(
        config,
        validation=evaluation_set(config, evaluation_seed),
        output=output,
        resume=output if output is not None and is_resumable(output) else None,
        observer=observer,
        artifacts=False,
    )
    own = trainer.task.metrics
    extra = tuple(name for name in metrics if name not in own)
    trainer.task = dataclasses.replace(trainer.task, metrics=(*own, *extra))
    return trainer


def evaluation_set(config: MeZOConfig, evaluation_seed: int) -> MeZODataset | None:
    """The examples that every run of a study is evaluated on, drawn by a seed of the study.

    With `split_sizes` each seed draws its own splits, as in the paper: the validation examples of another seed may be
    training examples of this one.
    """
    seed = config.seed if config.split_sizes else evaluation_seed
    task = task_for(config.task, config.label_words, config.template)
    return validation_set(config.model_copy(update={"seed": seed}), task)


def train_one(request: dict[str, Any], folder: Path, *, trusting: bool = False) -> None:
    """Make the run that the request describes, in `folder`; process.json is written last.

    Raises MezoError as `MeZOTrainer` does, and if the run is interrupted.
    """
    config = MeZOConfig.build(**{**request["config"], "trust_remote_code": trusting})
    log = _Log(folder)
    trainer = trainer_for(config, request["evaluation_seed"], request["metrics"], output=folder, observer=log)
    if trainer.validation_set is None:
        raise MezoError(
            f"{config.data}: a study compares runs on validation examples, found none; give a folder with a"
            " validation split, or --split-sizes"
        )
    trainer.estimator = counting = Counting(trainer.estimator)
    result = trainer.train()
    if result.interrupted:
        raise MezoError("the run was interrupted from outside")
    batches = trainer.train_set.microbatches(0, config.batch_size, config.gradient_accumulation, config.seed)
    # The trainer's own summary has the peak since the last evaluation alone, because `StepPeak` resets the mark.
    write_summary(folder, Summary(f"MeZO {config.tuning}", result.seconds, log.peak.whole()))
    device = next(trainer.bench.model.parameters()).device
    on_gpu = device.type == "cuda"
    outcome = Outcome(
        seconds=result.seconds,
        forward_passes=(_probes_before(result, counting) + sum(counting.asked)) * len(batches),
        peak_memory_bytes=log.peak.whole(),
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
        device_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        step_memory_bytes=log.peak.of_steps(),
        threads=torch.get_num_threads(),
        versions={
            "mezo": mezo.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    )
    write_outcome(folder, outcome)


def _probes_before(result: TrainResult, counting: Counting) -> int:
    """The probes of the steps that earlier processes of the run have made."""
    config, before = result.config, result.steps[: len(result.steps) - len(counting.asked)]
    inner = counting.inner
    return sum(
        len(inner.ask(draw_of(config.seed, s.step, directions_at(config, s.step)), inner.init()))
        if s.losses is None
        else len(s.losses)
        for s in before
    )
