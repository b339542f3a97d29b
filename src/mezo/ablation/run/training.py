"""What the process of a run does: one run trained, evaluated and measured; or a few steps of it, to time them."""

import dataclasses
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import mezo
from mezo.ablation.binding.checks import mean_probes, probes_at
from mezo.ablation.run.cases import Cost
from mezo.ablation.run.folder import is_resumable
from mezo.ablation.run.measures import OUTCOME, Outcome
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.errors import MezoError
from mezo.events import EvalRecord, Observer, StepRecord
from mezo.runs.summary import Summary, write_summary
from mezo.training.trainer import MeZOTrainer
from mezo.util.atomic_files import write_text
from mezo.util.clock import measured, since
from mezo.util.json_text import to_json
from mezo.util.memory import forget_peak, high_water, peak_bytes
from mezo.util.parsing import parse_json

TIMED = 2  # steps, after one that is not timed: it compiles kernels and fills caches
_LONG = 5.0  # seconds: a first step that takes longer is timed itself
_EXAMPLES = 64  # of the timed evaluation


class _Log(Observer):
    """Prints the run's log, and follows the peak memory of its steps, apart from that of loading and evaluations.

    It is the system's high-water mark of resident memory, which is reset before the steps (Linux). Where it cannot be
    reset, `of_steps` stays None and `peak` is still right. A file keeps the marks for a process that resumes the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._fresh = folder / "peaks.json", False
        self._whole: int = 0
        self.of_steps: int | None = None  # bytes
        if self._file.is_file():
            found = parse_json(self._file.read_text(encoding="utf-8"))
            self._whole, self.of_steps = found["whole"], found["steps"]

    @property
    def peak(self) -> int:
        """The peak of the process in bytes, since its start."""
        # The kernel adds up its counts of pages now and then, so a later mark may be a little lower.
        return max(self._whole, self.of_steps or 0, high_water() or peak_bytes())

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None:
        print(summary)
        self._reset()

    def on_note(self, text: str) -> None:
        print(text)

    def on_step(self, record: StepRecord) -> None:
        if self._fresh:
            self.of_steps = max(self.of_steps or 0, high_water())

    def on_eval(self, record: EvalRecord) -> None:
        print(f"step {record.step}: {record.headline or ''} loss {record.loss:.4f}")
        self._reset()

    def _reset(self) -> None:
        before, self._whole = high_water(), self.peak
        self._fresh = forget_peak() and 0 < high_water() <= before
        write_text(self._file, to_json({"whole": self._whole, "steps": self.of_steps}) + "\n")


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
    config = config.model_copy(update={"eval_seed": evaluation_seed})
    trainer = MeZOTrainer(
        config,
        output=output,
        resume=output if output is not None and is_resumable(output) else None,
        observer=observer,
        artifacts=False,
    )
    every = tuple(dict.fromkeys((*trainer.task.metrics, *metrics)))
    trainer.task = dataclasses.replace(trainer.task, metrics=every)
    return trainer


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
    result = trainer.train()
    if result.interrupted:
        raise MezoError("the run was interrupted from outside")
    batches = trainer.train_set.microbatches(0, config.batch_size, config.gradient_accumulation, config.seed)
    probes = [
        probes_at(trainer.estimator, config, s.step) if s.losses is None else len(s.losses)
        for s in result.steps
    ]
    # The trainer's own summary has the peak since the last evaluation alone, because `_Log` resets the mark.
    write_summary(folder, Summary(f"MeZO {config.tuning}", result.seconds, log.peak))
    device = next(trainer.bench.model.parameters()).device
    on_gpu = device.type == "cuda"
    outcome = Outcome(
        seconds=result.seconds,
        forward_passes=len(batches) * sum(probes),
        peak_memory_bytes=log.peak,
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
        device_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
        step_memory_bytes=log.of_steps,
        threads=torch.get_num_threads(),
        versions={
            "mezo": mezo.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    )
    write_text(folder / OUTCOME, to_json(dataclasses.asdict(outcome)) + "\n")


def time_to(request: dict[str, Any], output: Path, *, began: float, trusting: bool = False) -> None:
    """Write the Cost of the request's config to `output`. began: `time.monotonic()` at the start of this process."""
    starting = since(began)
    config = MeZOConfig.build(**{**request["config"], "trust_remote_code": trusting})
    cost = time_one(config, request["evaluation_seed"], starting)
    write_text(output, to_json(dataclasses.asdict(cost)) + "\n")


def time_one(config: MeZOConfig, evaluation_seed: int, starting: float) -> Cost:
    """The cost of a run of `config`. starting: seconds that its process takes to start."""
    began = time.monotonic()
    trainer = trainer_for(config, evaluation_seed, (), observer=Observer())
    loading = since(began)

    def seconds_of(step: int) -> float:
        began = time.monotonic()
        return trainer.move(step, trainer.prepared(step), began)[1].seconds

    steps, seconds = [0], [seconds_of(0)]
    if seconds[0] < _LONG:
        steps = list(range(1, TIMED + 1))
        seconds = [seconds_of(step) for step in steps]
    timed = statistics.fmean(probes_at(trainer.estimator, config, step) for step in steps)
    passes = mean_probes(trainer.estimator, config)
    evaluation, examples = 0.0, trainer.validation_set
    if examples is not None:  # estimated from its first examples
        few = EncodedDataset(examples[:_EXAMPLES])
        evaluation = trainer.evaluate(few).seconds * len(examples) / len(few)
    return Cost(
        step=measured(statistics.median(seconds), "a step") * passes / timed,
        fixed=starting + loading,
        evaluation=evaluation,
        passes=passes * config.gradient_accumulation,
    )
