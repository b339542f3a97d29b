"""One trial: a short run of MeZO, as `mezo train` would run it, whose weights are then forgotten."""

import gc
import math
import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mezo.algorithm import NonFiniteLoss
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.from_config import task_of, training_set, validation_set
from mezo.data.sampling import permutation
from mezo.errors import MezoError
from mezo.events import EvalRecord, Observer, StepRecord
from mezo.search.space import SearchedSetting
from mezo.search.trials import Trial
from mezo.training.monitors import ExplodingLoss
from mezo.training.trainer import MeZOTrainer
from mezo.util import memory
from mezo.util.clock import measured, since

_JUDGES = 256  # validation examples, unless the config says how many
_SHARE = 5  # of data without a validation split, one in so many is held out


def search_data(config: MeZOConfig) -> tuple[MeZODataset, MeZODataset]:
    """Training and validation examples of the config's data.

    At most 256 of the validation split unless `eval_examples` says otherwise. Data without that split give up a fifth
    of their training examples, by seed.
    """
    train = training_set(config, task_of(config))
    task = train.task
    most = config.eval_examples or _JUDGES
    validation = validation_set(config.model_copy(update={"eval_examples": most}), task)
    if validation is not None:
        return train, validation
    order = permutation(len(train), "held out", config.seed).tolist()
    held_out = set(order[: min(most, max(1, len(train) // _SHARE))])
    rows = [row.fields for row in train.rows]
    return (
        MeZODataset([row for i, row in enumerate(rows) if i not in held_out], task=task),
        MeZODataset([row for i, row in enumerate(rows) if i in held_out], task=task, split="validation"),
    )


FAR = 2.0  # times the loss before the first step: a run that ends there has diverged
_HOPELESS = 4.0  # times that loss, over some steps: one that is there is not run to its end
_WINDOW = 8  # steps
_TIMED = 4  # steps of the run that is timed
# Of the loss, a step. A run in danger promises a tenth of that, and may yet be the fastest; half of the
# loss is more than any step can take.
_PAST_DOUBT = 0.5
_SLOPES_AS_THEY_ARE = ("sgd", "momentum")  # optimizers that step by learning rate times slope


class _Diverged(MezoError):
    """Breaks a run off."""


class _Listener(Observer):
    """Keeps the evaluations, also of a run that breaks off, and breaks off a run without hope."""

    def __init__(self) -> None:
        self.evals: list[EvalRecord] = []
        self._losses: deque[float] = deque(maxlen=_WINDOW)

    def on_eval(self, record: EvalRecord) -> None:
        self.evals.append(record)

    def on_step(self, record: StepRecord) -> None:
        self._losses.append(record.loss)
        start = self.evals[0].loss
        if len(self._losses) == _WINDOW and statistics.fmean(self._losses) > _HOPELESS * start:
            raise _Diverged("the loss is far above that of the start")


def trial_config(config: MeZOConfig, setting: SearchedSetting, steps: int) -> MeZOConfig:
    """The config of a trial: the schedule and the warm-up shrink with the steps."""
    return MeZOConfig.build(
        **{
            **config.model_dump(),
            "learning_rate": setting.learning_rate,
            "epsilon": setting.epsilon,
            "num_steps": steps,
            "warmup_steps": config.warmup_steps * steps // config.num_steps,
            "eval_every": 0,
        }
    )


def run_trial(
    config: MeZOConfig,
    train: MeZODataset,
    validation: MeZODataset,
    setting: SearchedSetting,
    rung: int,
    steps: int,
) -> Trial:
    """Tune for `steps` from the base model, with the config's own seed and so its order of examples.

    The model is loaded again for each trial: a copy in memory would double what a search needs.
    Raises KeyboardInterrupt if the run was interrupted.
    """
    began, listener = time.monotonic(), _Listener()
    short = trial_config(config, setting, steps)
    finished = too_large = False
    try:
        trainer = MeZOTrainer(short, train=train, validation=validation, observer=listener)
        result = trainer.train()
        if result.interrupted:
            raise KeyboardInterrupt
        finished = True
        if trainer.estimator.gives_slopes and short.optimizer in _SLOPES_AS_THEY_ARE:
            too_large = _promised(result.steps) > _PAST_DOUBT
        del result  # it holds the model, too
    except (NonFiniteLoss, ExplodingLoss, _Diverged):
        pass
    trainer = None  # with its model, before the next one is loaded
    gc.collect()
    start = listener.evals[0].loss if listener.evals else math.nan
    last = listener.evals[-1] if finished else None
    loss = last.loss if last else math.nan
    return Trial(
        rung=rung,
        steps=steps,
        learning_rate=setting.learning_rate,
        epsilon=setting.epsilon,
        start=start,
        loss=loss,
        score=next(iter(last.metrics.values()), last.accuracy) if last else None,
        diverged=not math.isfinite(loss) or loss > FAR * start,
        too_large=too_large,
        seconds=since(began),
        peak_memory_bytes=memory.peak_bytes(),
    )


def _promised(steps: Sequence[StepRecord]) -> float:
    """The share of the loss that a step should have removed by its slopes (`monitors.advice`): a model wrecked by
    large steps may answer everything alike, at a lower loss than at the start.
    """
    drop = statistics.fmean(
        s.learning_rate * statistics.fmean(g * g for g in s.projected_grads) for s in steps
    )
    loss = abs(statistics.fmean(s.loss for s in steps))
    return drop / loss if loss else 0.0


class TrialCost(NamedTuple):
    """What trials take here, in seconds."""

    per_step: float
    per_trial: float  # besides its steps: loading, two evaluations


def measure(
    config: MeZOConfig, train: MeZODataset, validation: MeZODataset, setting: SearchedSetting
) -> TrialCost:
    """Time a few steps that do not move (their learning rate is 0)."""
    began = time.monotonic()
    still = trial_config(config, setting._replace(learning_rate=0.0), _TIMED)
    result = MeZOTrainer(still, train=train, validation=validation, observer=Observer()).train()
    if result.interrupted:
        raise KeyboardInterrupt
    steps = [s.seconds for s in result.steps]
    per_step = measured(statistics.median(steps[1:]), "a step")
    return TrialCost(per_step, max(0.0, since(began) - math.fsum(steps)))
