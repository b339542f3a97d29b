"""All that watches the records of a run, as one. A function of the records: a resumed run watches as one never left."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mezo.config import MeZOConfig
from mezo.estimators import Estimator
from mezo.events import Notice, StepRecord
from mezo.objectives import Objective
from mezo.scoring import Example
from mezo.training.monitors.advice import StepSize
from mezo.training.monitors.explosion import ExplodingLoss, Explosion, guessing
from mezo.training.monitors.no_movement import Stillness
from mezo.training.monitors.plateau import Plateau

RISE = 1.5  # times its best: a loss that is no longer finite had gone wrong before


class Watch:
    """Notices, once each, and stops a run that has exploded. explosion: None: it is not watched for."""

    def __init__(
        self,
        config: MeZOConfig,
        objective: str,
        *,
        slopes: bool,
        explosion: Explosion | None,
        run: Path | None,
    ) -> None:
        self._config, self._objective, self._slopes, self._run = config, objective, slopes, run
        self._explosion, self._exploded = explosion, 0
        self._done, self._rate = 0, 0.0  # updates, and the highest learning rate so far
        self.notices: list[Notice] = []
        self._begin(0)

    def _begin(self, first_step: int) -> None:
        self._watchers: tuple[tuple[str, Callable[[StepRecord], str | None]], ...] = (
            ("step-size", StepSize(slopes=self._slopes).seen),
            ("zero-gradients", Stillness(self._config, self._objective).seen),
            ("plateau", Plateau(self._config, first_step).seen),
        )

    def take_in(self, records: Sequence[StepRecord], first_step: int) -> None:
        """What a resumed run has done already, from its own first step on; not reported again.

        Raises ExplodingLoss if it was stopped for that.
        """
        self._begin(first_step)
        for record in records:
            for _ in self._heard(record):
                pass
        self.check()

    def step(
        self,
        record: StepRecord,
        note: Callable[[str], None],
        log: Callable[..., None] | None = None,
    ) -> None:
        """note: called with a text for people; log: called with (kind, step=, what=, text=), for RUN/events.jsonl.

        Raises ExplodingLoss if the run has exploded.
        """
        heard = list(self._heard(record))
        self.check()  # its advice alone: two rates to try at one time are one too many
        for notice in heard:
            note(notice.text)
            if log is not None:
                log("noticed", step=notice.step, what=notice.kind, text=notice.text)

    def _heard(self, record: StepRecord) -> Iterator[Notice]:
        self._done, self._rate = record.step + 1, max(self._rate, record.learning_rate)
        if self._explosion is not None and self._explosion.seen(record) and not self._exploded:
            self._exploded = record.step + 1
        for kind, seen in self._watchers:
            if (text := seen(record)) is not None:
                self.notices.append(Notice(record.step + 1, kind, text))
                yield self.notices[-1]

    def check(self) -> None:
        """Raises ExplodingLoss if the run has exploded and is to be stopped for it."""
        found = self._explosion
        if found is None or not self._exploded or not self._config.stop_on_explosion:
            return
        rate = self._rate if self._config.learning_rate == "auto" else self._config.learning_rate
        raise ExplodingLoss(
            f"step {self._exploded}: the loss has exploded: its median over the last 50 steps is {found.last:.3g}; it "
            f"began at {found.first:.3g}, and guessing costs {found.guess:.3g}. Lower the learning rate "
            f"(--learning-rate {rate / 3:.1g}) or epsilon. What was done is saved, up to this step; "
            f"{self.way_back()}. --no-stop-on-explosion lets such a run go on"
        )

    def way_back(self) -> str:
        """How to get the weights from before the loss rose."""
        found = self._explosion
        if found is None or not found.best_steps or found.best > found.first:
            return "it was never better than at its beginning, so there is nothing to go back to but the base model"
        return f"the loss was lowest around step {found.best_steps}, {self._weights_of(found.best_steps)}"

    def after_a_failure(self, *, overflowed: bool) -> str:
        """The same for a loss that is not finite: "" where the weights at hand are as good as any.

        overflowed: the update before made the weights infinite.
        """
        if overflowed and self._done:
            before = f"the update of step {self._done - 1} overflowed the weights; step {self._done - 1} is the one before"
            return f"{before}, {self._weights_of(self._done - 1)}"
        found = self._explosion
        risen = found is not None and found.best_steps > 0 and found.last > RISE * found.best
        return self.way_back() if risen else ""

    def _weights_of(self, steps: int) -> str:
        run = "RUN" if self._run is None else self._run
        return (
            f"whose weights are had by `mezo trajectory cut {run} --steps {steps} --output good.mezo` and `mezo replay "
            "good.mezo --output good`"
        )


def watch_of(
    config: MeZOConfig,
    objective: Objective,
    estimator: Estimator,
    examples: Sequence[Example],
    vocabulary: int,
    run: Path | None,
) -> Watch:
    """The watch of a run. examples: it trains on. vocabulary: tokens there are."""
    guess = guessing(objective, examples, vocabulary)
    a_step = min(config.batch_size * config.gradient_accumulation, len(examples))
    return Watch(
        config,
        objective.name,
        slopes=estimator.gives_slopes and config.optimizer in ("sgd", "momentum"),
        explosion=None if guess is None else Explosion(guess, a_step),
        run=run,
    )
