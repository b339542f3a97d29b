"""One run of a study, inside its own process: trained, evaluated, and what it took written down."""

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import mezo
from mezo.ablation.run.folder import is_half
from mezo.ablation.run.outcome import Outcome, write_outcome
from mezo.ablation.run.peak_memory import StepPeak
from mezo.algorithm import draw_of
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.configured import validation_set
from mezo.errors import MezoError
from mezo.estimators.base import Estimator, Wrapper
from mezo.events import EvalRecord, Observer, StepRecord
from mezo.result import TrainResult
from mezo.setup import directions_at
from mezo.summary import Summary, write_summary
from mezo.tasks import task_for
from mezo.trainer import MeZOTrainer
from mezo.types import Draw, Probe


@dataclasses.dataclass(frozen=True)
class Counting(Wrapper):
    """Counts the probes that are asked for; otherwise the estimator it is put around."""

    inner: Estimator
    asked: list[int] = dataclasses.field(default_factory=list, compare=False)  # probes of each step

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        probes = super().ask(draw, state)
        self.asked.append(len(probes))
        return probes


class _Log(Observer):
    """Lines for the run's log; and the memory of its steps, apart from its evaluations'."""

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
    """A trainer whose evaluation set is the whole study's, judged by `metrics` beside the task's own.

    output: where the half of a run is, it goes on, to the numbers of one that was never ended.
    """
    resume = output if output is not None and is_half(output) else None
    trainer = MeZOTrainer(
        config,
        validation=evaluation_set(config, evaluation_seed),
        output=output,
        resume=resume,
        observer=observer,
        artifacts=False,
    )
    own = trainer.task.metrics
    extra = tuple(name for name in metrics if name not in own)
    trainer.task = dataclasses.replace(trainer.task, metrics=(*own, *extra))
    return trainer


def evaluation_set(config: MeZOConfig, evaluation_seed: int) -> MeZODataset | None:
    """The examples that every run of a study is judged on, drawn by a seed of the study.

    Splits drawn by size (`split_sizes`) are the exception: there each seed draws its own, as in the paper,
    since another seed's validation examples may be among those that this one trains on.
    """
    seed = config.seed if config.split_sizes else evaluation_seed
    task = task_for(config.task, config.label_words, config.template)
    return validation_set(config.model_copy(update={"seed": seed}), task)


def train_one(request: dict[str, Any], folder: Path, *, trusting: bool = False) -> None:
    """Make the run that the request describes, in `folder`; process.json is written last.

    Raises MezoError as `MeZOTrainer` does, and if the run was interrupted.
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
    microbatches = len(
        trainer.train_set.microbatches(0, config.batch_size, config.gradient_accumulation, config.seed)
    )
    # Its own summary has the peak since the last evaluation alone: `StepPeak` resets the system's.
    write_summary(folder, Summary(f"MeZO {config.tuning}", result.seconds, log.peak.whole()))
    device = next(trainer.bench.model.parameters()).device
    write_outcome(
        folder,
        Outcome(
            seconds=result.seconds,
            forward_passes=(probes_before(result, counting) + sum(counting.asked)) * microbatches,
            peak_memory_bytes=log.peak.whole(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            device_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            step_memory_bytes=log.peak.of_steps(),
            threads=torch.get_num_threads(),
            versions=versions(),
        ),
    )


def probes_before(result: TrainResult, counting: Counting) -> int:
    """The probes of the steps that earlier processes of a run have made, and this one has not counted."""
    config, before = result.config, result.steps[: len(result.steps) - len(counting.asked)]
    inner = counting.inner
    return sum(
        len(inner.ask(draw_of(config.seed, s.step, directions_at(config, s.step)), inner.init()))
        if s.losses is None
        else len(s.losses)
        for s in before
    )


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    import transformers

    return {
        "mezo": mezo.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
