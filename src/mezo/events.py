"""What a run tells whoever watches it. Each record is also a line of metrics.jsonl."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepRecord:
    step: int  # 0-based: this update was number step + 1
    loss: float  # mean of the objective over the step's probes
    learning_rate: float
    projected_grads: tuple[float, ...]  # one a direction
    seconds: float  # of the whole step
    tokens: int  # that went through the model, all probes together


@dataclass(frozen=True, slots=True)
class EvalRecord:
    step: int  # updates done when this was measured
    split: str
    accuracy: float | None  # None where the task has no candidates to choose from
    loss: float  # of the training objective's differentiable form, see trainer
    examples: int
    seconds: float


class Observer:
    """Override what you want to hear of; the default hears nothing."""

    def on_start(self, first_step: int, num_steps: int, summary: str) -> None: ...

    def on_note(self, text: str) -> None:
        """Something a person should know: a warning, a first-use compilation, what is loaded."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_eval(self, record: EvalRecord) -> None: ...

    def on_end(self) -> None: ...
