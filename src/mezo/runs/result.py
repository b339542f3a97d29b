"""What a run came to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mezo.config import MeZOConfig
from mezo.events import EvalRecord, Notice, StepRecord, token_reuse


@dataclass(repr=False)
class TrainResult:
    """What a run came to.

    Args:
        config, output: the settings, and the RUN folder; None where nothing was written.
        steps, evals: a record for each step and each evaluation.
        interrupted: Ctrl-C, SIGTERM or a callback ended the run early.
        terminated: SIGTERM ended it; only what resuming takes was saved.
        trajectory: the file from which the weights can be made again.
        model, tokenizer: the tuned model, with its adapter if it has one.
        engine: a serving engine that was left open (`serve_as`); its close() ends it.
        peak_memory_bytes, seconds: of the whole run.
        notices: messages to people during the run.
        start: of `start=linear-probe`, its examples, forward passes, losses and accuracies; None without it.

    Example:
        >>> import mezo
        >>> result = mezo.mezo_finetune("./my-model", "tickets.jsonl", learning_rate=1e-3, num_steps=3)
        >>> sorted(result.metrics)[:2]
        ['accuracy_after', 'accuracy_before']
    """

    config: MeZOConfig
    output: Path | None
    steps: list[StepRecord] = field(default_factory=list)
    evals: list[EvalRecord] = field(default_factory=list)
    interrupted: bool = False
    terminated: bool = False
    trajectory: Path | None = None
    model: Any = None
    tokenizer: Any = None
    engine: Any = None
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    notices: list[Notice] = field(default_factory=list)
    start: dict[str, Any] | None = None

    def __repr__(self) -> str:
        parts = [f"{len(self.steps):,} steps"]
        if self.evals:
            first, last = self.evals[0], self.evals[-1]
            if first.headline and last.headline:
                parts.append(f"{last.headline.name} {first.headline} -> {last.headline}")
            parts.append(f"loss {first.loss:.4f} -> {last.loss:.4f} on {last.split}")
        elif self.steps:
            parts.append(f"training loss {self.steps[-1].loss:.4f}")
        parts += ["interrupted"] * self.interrupted
        parts += [str(self.output)] * (self.output is not None)
        return f"TrainResult({', '.join(parts)})"

    @property
    def losses(self) -> list[float]:
        """The mean loss of each step's probes."""
        return [s.loss for s in self.steps]

    @property
    def profile(self) -> list[dict[str, float]]:
        """Seconds by span name of each step; empty unless the run was profiled."""
        return [s.profile for s in self.steps if s.profile is not None]

    @property
    def metrics(self) -> dict[str, Any]:
        """The last evaluation, by the name of each metric and as "validation/accuracy"; the first and the last one; and
        figures of the whole run.

        zero_gradient_fraction: of the steps, those whose every projected gradient was 0.
        start_forward_passes: that `start=linear-probe` took before the first step, in batches of a step.
        token_reuse_rate: of the tokens its steps asked for, those that were not computed again.
        """
        first, last = (self.evals[0], self.evals[-1]) if self.evals else (None, None)
        zero = sum(not any(s.projected_grads) for s in self.steps)
        judged = {} if last is None else {**last.metrics, "loss": last.loss}
        if last is not None and last.accuracy is not None:
            judged = {"accuracy": last.accuracy, **judged}
        split = last.split if last else ""
        return {
            **judged,
            **{f"{split}/{name}": value for name, value in judged.items()},
            "steps": len(self.steps),
            "accuracy_before": first and first.accuracy,
            "accuracy_after": last and last.accuracy,
            "metric": last and last.headline and last.headline.name,
            "metric_before": first and first.headline and first.headline.value,
            "metric_after": last and last.headline and last.headline.value,
            "loss_before": first and first.loss,
            "loss_after": last and last.loss,
            "start_forward_passes": self.start["forward_passes"] if self.start else 0,
            "zero_gradient_fraction": zero / len(self.steps) if self.steps else 0.0,
            "token_reuse_rate": token_reuse(
                sum(s.tokens_asked for s in self.steps), sum(s.tokens_reused for s in self.steps)
            ),
            "seconds_saved": sum(s.seconds_saved for s in self.steps),
            "peak_memory_bytes": self.peak_memory_bytes,
            "seconds": self.seconds,
        }
