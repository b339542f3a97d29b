"""The cost of a run of each case, measured over a few steps in a process before the study begins."""

import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mezo.ablation.run.budget import Cost
from mezo.ablation.run.training import Counting, trainer_for
from mezo.algorithm import draw_of, mezo_step
from mezo.build.schedule import directions_at, learning_rate
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.training.trainer import MeZOTrainer
from mezo.util.atomic_files import write_text
from mezo.util.clock import measured, since
from mezo.util.json_text import to_json

STEPS = 2  # timed, after one that is not: it compiles kernels and fills caches
_LONG = 5.0  # seconds: a first step that takes longer is timed itself
_EXAMPLES = 64  # of the timed evaluation


def time_to(request: dict[str, Any], output: Path, *, began: float, trusting: bool = False) -> None:
    """Write the Cost of the request's config, or {"error": ...}, to `output`.

    began: `time.monotonic()` at the start of this process.
    """
    starting = since(began)
    try:
        config = MeZOConfig.build(**{**request["config"], "trust_remote_code": trusting})
        found = asdict(time_one(config, request["evaluation_seed"], starting))
    except (MezoError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's, also out of memory
        found = {"error": " ".join(str(error).split())}
    write_text(output, to_json(found) + "\n")


def time_one(config: MeZOConfig, evaluation_seed: int, starting: float) -> Cost:
    """The cost of a run of `config`. starting: seconds that its process takes to start."""
    began = time.monotonic()
    trainer = trainer_for(config, evaluation_seed, (), observer=Observer())
    loading = since(began)
    trainer.estimator = counting = Counting(trainer.estimator)
    seconds = [_step(trainer, 0)]
    if seconds[0] < _LONG:
        seconds = [_step(trainer, step) for step in range(1, STEPS + 1)]
    timed = passes = statistics.fmean(counting.asked)
    if config.final_directions is not None:  # n grows linearly, so the mean is that of its ends
        last = draw_of(config.seed, config.num_steps - 1, directions_at(config, config.num_steps - 1))
        passes = (counting.asked[0] + len(trainer.estimator.ask(last, trainer.estimator_state))) / 2
    return Cost(
        step=measured(statistics.median(seconds), "a step") * passes / timed,
        fixed=starting + loading,
        evaluation=_evaluation(trainer),
        passes=passes * config.gradient_accumulation,
    )


def _step(trainer: MeZOTrainer, step: int) -> float:
    """Seconds of a step as the trainer makes it, its batch included."""
    c, began = trainer.config, time.monotonic()
    batches = trainer.train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed)
    _, _, trainer.estimator_state = mezo_step(
        trainer.engine,
        trainer.estimator,
        [trainer.engine.prepare(batch) for batch in batches],
        draw_of(c.seed, step, directions_at(c, step)),
        learning_rate(c, step),
        trainer.estimator_state,
    )
    return since(began)


def _evaluation(trainer: MeZOTrainer) -> float:
    """Seconds of an evaluation, estimated from its first examples."""
    if trainer.validation_set is None:
        return 0.0
    examples = trainer.validation_set
    few = EncodedDataset(examples[:_EXAMPLES])
    return trainer.evaluate(few).seconds * len(examples) / len(few)
