"""Fine-tuning by backpropagation (the paper's "FT"), on what MeZO would be tuned on.

Task, examples, their order, objective, tuning mode, schedule and evaluation are those of the same
config under `mezo train`; only the update differs: torch's AdamW or SGD on the full gradient.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

import torch

from mezo.baselines.finetuner import FineTuner
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.plots import write_plots
from mezo.runs.result import TrainResult
from mezo.runs.summary import Summary, write_summary
from mezo.tuning import save
from mezo.util import memory
from mezo.util.atomic_files import write_text
from mezo.util.clock import since
from mezo.util.interrupts import Interrupts


def finetune(
    config: MeZOConfig,
    *,
    output: Path | str | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> TrainResult:
    """Tune by backpropagation for the config's steps, evaluating as a run of MeZO does.

    output: a folder like a run's: config.yaml, metrics.jsonl, summary.json, plots, and the model or
    adapter. options: of `FineTuner`. Ctrl-C ends it early with everything saved.

    Raises MezoError as `FineTuner` does, and NonFiniteLoss, once what there is has been saved.
    """
    if output is not None:
        RunFolder.check(output, overwrite=overwrite)
    tuner = FineTuner(config, observer=observer, **options)
    torch.manual_seed(config.seed)  # of dropout
    result = TrainResult(config, None if output is None else Path(output))
    result.model, result.tokenizer = tuner.model, tuner.tokenizer
    files = None if output is None else _Files(tuner, output, overwrite)
    began, failure = time.monotonic(), None
    with Interrupts() as interrupts:
        try:
            _loop(tuner, result, files, interrupts)
        except KeyboardInterrupt:
            result.interrupted = True
        except MezoError as error:
            failure = error
        result.seconds = since(began)
        result.peak_memory_bytes = memory.peak_bytes()
        if files is not None:
            with contextlib.suppress(KeyboardInterrupt), interrupts.held():
                files.finish(tuner, result)
    tuner.observer.on_end()
    if failure is not None:
        raise failure
    return result


def _loop(tuner: FineTuner, result: TrainResult, files: "_Files | None", interrupts: Interrupts) -> None:
    config = tuner.config

    def judge(step: int) -> None:
        record = tuner.evaluate(step)
        if record is not None:
            result.evals.append(record)
            if files is not None:
                files.metrics.write(record)
            tuner.observer.on_eval(record)

    tuner.observer.on_start(0, config.num_steps, _words(tuner))
    judge(0)
    for number in range(config.num_steps):
        with interrupts.held():
            record = tuner.step(number)
            result.steps.append(record)
            if files is not None:
                files.metrics.write(record)
        tuner.observer.on_step(record)
        done = number + 1
        if done == config.num_steps or (config.eval_every and done % config.eval_every == 0):
            judge(done)


def _words(tuner: FineTuner) -> str:
    c, tuned = tuner.config, sum(p.numel() for p in tuner.parameters)
    return (
        f"{c.model}, backpropagation with {tuner.method}: {tuned:,} parameters tuned on"
        f" {len(tuner.train_set):,} examples; {tuner.objective.name}, batch {c.batch_size}, learning rate"
        f" {c.learning_rate:g} ({c.schedule}), {c.num_steps:,} steps"
    )


class _Files:
    """What a fine-tuning leaves behind."""

    def __init__(self, tuner: FineTuner, output: Path | str, overwrite: bool):
        self.run = RunFolder.create(output, overwrite=overwrite)
        settings = tuner.config.model_copy(update={"optimizer": tuner.name})
        write_text(self.run.config, settings.to_yaml())
        self.metrics = MetricsWriter(self.run.metrics)

    def finish(self, tuner: FineTuner, result: TrainResult) -> None:
        self.metrics.close()
        target = self.run.adapter if tuner.config.saves_adapter else self.run.model
        save(tuner.model, tuner.tokenizer, target)
        write_plots(self.run)
        write_summary(self.run.path, Summary(tuner.method, result.seconds, result.peak_memory_bytes))
