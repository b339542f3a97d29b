"""What a run tells whoever watches it. Each record is also a line of metrics.jsonl."""

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class StepRecord:
    step: int  # 0-based: this update was number step + 1
    loss: float  # mean of the objective over the step's probes
    learning_rate: float
    projected_grads: tuple[float, ...]  # one a direction
    seconds: float  # of the whole step, waiting for its batch included
    tokens: int  # that went through the model, padding included, all probes together
    tokens_asked: int = 0  # that its probes would take with nothing reused; 0: not counted (older runs)
    tokens_reused: int = 0  # of these, not computed again
    seconds_saved: float = 0.0  # by that, as the engine estimates it
    # seconds by span name, if the run is profiled; logging is that since the record of the step before
    profile: dict[str, float] | None = None
    # of its probes, where the estimator remembers past losses: a resumed run takes them in again
    losses: tuple[float, ...] | None = None
    dead_groups: float | None = None  # of a population: the share of its groups whose losses are all equal
    rewards: dict[str, float] | None = None  # of its members, in a run by rewards: mean, std, min, max


def token_reuse(asked: int, reused: int) -> float:
    """The share of the tokens asked for that were not computed, 0 to 1; 0 if none were counted."""
    return reused / asked if asked else 0.0


class Notice(NamedTuple):
    step: int  # updates done when it was noticed
    kind: str  # step-size, zero-gradients, plateau
    text: str  # for people


@dataclass(frozen=True, slots=True)
class EvalRecord:
    step: int  # updates done when this was measured
    split: str
    accuracy: float | None  # None where the task has no candidates to choose from
    loss: float  # of the training objective's differentiable form, see trainer
    examples: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)  # the task's, 0 to 1, the headline one first
    examples_fingerprint: str | None = (
        None  # of the raw rows: runs compare if it is the same; None: not known
    )

    @property
    def headline(self) -> "Headline | None":
        """The metric that the task is judged by; None if it has none."""
        for name, value in self.metrics.items():
            return Headline(name, value)
        return None if self.accuracy is None else Headline("accuracy", self.accuracy)  # older runs


class Headline(NamedTuple):
    name: str
    value: float

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, as tasks' metrics do; a reward or a margin may be anything."""
        return ":" not in self.name and self.name != "preference-margin"

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %" if self.is_share else f"{self.value:.4f}"


class Observer:
    """Override what you want to hear of; the default hears nothing."""

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None: ...

    def on_note(self, text: str) -> None:
        """Something a person should know: a warning, a first-use compilation, what is loaded."""

    def on_replay(self, done: int, steps: int) -> None:
        """Steps made again from their records: 0 at first, then every second or so."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_eval(self, record: EvalRecord) -> None: ...

    def on_snapshot(self, step: int) -> None:
        """After `step` updates, what resuming takes was saved."""

    def on_end(self) -> None: ...


class StopTraining(Exception):
    """Raised by an observer to end the run here, with everything saved, as Ctrl-C does."""


class MezoWarning(UserWarning):
    """Something that will probably not do what its user wants."""


class WarningObserver(Observer):
    """Passes notes on as Python warnings: for runs that nobody watches otherwise."""

    def on_note(self, text: str) -> None:
        if text.startswith("warning: "):
            warnings.warn(text.removeprefix("warning: "), MezoWarning, stacklevel=4)
