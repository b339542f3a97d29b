"""The numbers of one run: what its process counted (process.json), and pure functions over that and metrics.jsonl.

A number that was not measured is left out; one that is not finite is NaN, which a report leaves out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from mezo.errors import MezoError
from mezo.events import EvalRecord
from mezo.runs.metrics_file import Metrics
from mezo.util.parsing import parse_json

OUTCOME = "process.json"  # written last, so a folder with it holds a finished run
GB = 1e9  # bytes
_TAIL = 10  # the training loss is the mean over the last tenth of the steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counted and measured in the process of one run, in addition to metrics.jsonl."""

    seconds: float  # of the run and its evaluations, without starting the process and loading the model
    forward_passes: int  # over microbatches, one a probe; without those of evaluations
    peak_memory_bytes: int  # resident memory of the process, its libraries and the model included
    device: str  # where the model ran: "cpu", or a GPU's name
    devices: int = 1
    device_memory_bytes: int | None = None  # peak of torch's allocations there; None on a CPU
    step_memory_bytes: int | None = None  # peak resident memory during steps; None if not measured
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)


def read_outcome(folder: Path) -> Outcome:
    """The outcome in FOLDER/process.json. Raises MezoError if the file is missing or invalid."""
    path = folder / OUTCOME
    try:
        return Outcome(**parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MezoError(
            f"{path}: expected the outcome of a finished run, found something else ({error}); delete its folder, and"
            " the run is made again"
        ) from None


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value of the validation loss ("loss") or of a metric (any other name) that a run reaches or not."""

    metric: str
    value: float
    source: str  # where the value comes from, for people

    def reached(self, record: EvalRecord) -> bool:
        """Whether an evaluation is at the threshold or better: lower for a loss, higher for a metric."""
        found = scores(record).get(self.metric, math.nan)
        return found <= self.value if self.metric == "loss" else found >= self.value


def measure(metrics: Metrics, outcome: Outcome, threshold: Threshold | None = None) -> dict[str, float]:
    """Every number of a run by name, the task's headline metric first. docs/ablation.md defines them."""
    steps, evals = metrics.steps, metrics.evals
    found: dict[str, float] = dict(scores(evals[-1])) if evals else {}
    if steps:
        tail = steps[-max(1, len(steps) // _TAIL) :]
        found["train_loss"] = math.fsum(s.loss for s in tail) / len(tail)
        found["zero_gradient_fraction"] = sum(not any(s.projected_grads) for s in steps) / len(steps)
    found["train_seconds"] = math.fsum(s.seconds for s in steps)
    found["device_hours"] = outcome.seconds * outcome.devices / 3600
    found["forward_passes"] = float(outcome.forward_passes)
    for what in ("peak", "step", "device"):
        if (size := getattr(outcome, f"{what}_memory_bytes")) is not None:
            found[f"{what}_memory_gb"] = size / GB
    if len(evals) > 1:
        found["area_under_curve"] = area_under_curve(evals, curve_metric(evals))
    if threshold is not None and evals:
        found |= to_threshold(metrics, threshold)
    return found


def scores(record: EvalRecord) -> dict[str, float]:
    """The metrics of an evaluation under the names of a study, the headline first, and its loss.

    The first F1 is called `f1` and the first exact match `exact_match` (`squad-f1`, `macro-f1`); others keep their names.
    """
    found: dict[str, float] = {}
    for name, value in record.metrics.items():
        plain = "f1" if "f1" in name else "exact_match" if name.endswith("-em") else name
        found.setdefault(name if plain in found else plain, value)
    if record.accuracy is not None:
        found.setdefault("accuracy", record.accuracy)
    found["loss"] = record.loss
    return found


def curve_metric(evals: Sequence[EvalRecord]) -> str:
    """The metric of a learning curve: the headline metric, or the loss if the task has none."""
    return next(iter(scores(evals[-1])))


def area_under_curve(evals: Sequence[EvalRecord], metric: str) -> float:
    """The mean height of the learning curve over its steps, by the trapezoidal rule; NaN without steps."""
    known = [(e.step, value) for e in evals if (value := scores(e).get(metric)) is not None]
    width = known[-1][0] - known[0][0] if known else 0
    if not width:
        return math.nan
    return (
        math.fsum((end - start) * (low + high) / 2 for (start, low), (end, high) in pairwise(known)) / width
    )


def to_threshold(metrics: Metrics, threshold: Threshold) -> dict[str, float]:
    """Steps, and seconds of these steps, until the first evaluation that reaches the threshold.

    Both are NaN for a run that does not reach it, and `reached_threshold` is 0.
    """
    first = next((record.step for record in metrics.evals if threshold.reached(record)), None)
    if first is None:
        return {"steps_to_threshold": math.nan, "seconds_to_threshold": math.nan, "reached_threshold": 0.0}
    seconds = math.fsum(s.seconds for s in metrics.steps if s.step < first)
    return {"steps_to_threshold": float(first), "seconds_to_threshold": seconds, "reached_threshold": 1.0}


def mean_at_the_end(runs: Iterable[Sequence[EvalRecord]], metric: str) -> tuple[float, int]:
    """(mean, number) of a metric over the last evaluations of runs, without those that are not finite."""
    last = [scores(evals[-1]).get(metric, math.nan) for evals in runs if evals]
    values = [value for value in last if math.isfinite(value)]
    return (math.fsum(values) / len(values) if values else math.nan), len(values)
