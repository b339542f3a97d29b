"""--metrics-file: where a run is, in the text format of Prometheus, for node_exporter's textfile collector.

The file is replaced whole, at most every two seconds, so that no reader sees half of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mezo.sinks.base import Begun, Sink, SinkPoint
from mezo.util.atomic_files import write_text

# Of the numbers of a step: what each is called here, and said to be.
_OF_A_STEP = {
    "loss": ("mezo_loss", "Mean loss of the last step's probes."),
    "learning_rate": ("mezo_learning_rate", "Learning rate of the last step."),
    "projected_gradient": ("mezo_projected_gradient", "Mean of the last step's projected gradients."),
    "projected_gradient_magnitude": ("mezo_projected_gradient_magnitude", "Mean of their magnitudes."),
    "tokens_per_second": ("mezo_tokens_per_second", "Tokens of the last step over its seconds."),
    "token_reuse": ("mezo_token_reuse_ratio", "Of its tokens, the share that was not computed again."),
    "seconds": ("mezo_step_seconds", "Seconds that the last step took."),
}


class Family(NamedTuple):
    """One metric: its samples by their labels."""

    name: str
    kind: str  # gauge, counter
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


class MetricsFile(Sink):
    every = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._step: dict[str, float] = {}  # numbers of the last one, by name
        self._evaluations: dict[tuple[str, str], float] = {}  # by (split, metric)
        self._done = self._time = 0.0
        self._still = 0

    def open(self, begun: Begun) -> None:
        self._begun, self._done = begun, float(begun.first_step)

    def write(self, points: Sequence[SinkPoint]) -> None:
        for point in points:
            self._take(point)
        write_text(self._path, render(self._families(running=True)))

    def close(self, *, failed: bool) -> None:
        write_text(self._path, render(self._families(running=False, failed=failed)))

    def _take(self, point: SinkPoint) -> None:
        self._time = point.time
        for name, value in point.numbers.items():
            split, _, metric = name.partition("/")
            if split == "train":
                self._step[metric] = value
            else:
                self._evaluations[split, metric] = value
        if "train/loss" in point.numbers:
            self._done = point.step + 1
            self._still += int(point.numbers["train/zero_gradient"])

    def _families(self, *, running: bool, failed: bool = False) -> Iterator[Family]:
        def one(name: str, kind: str, help: str, value: float) -> Family:
            return Family(name, kind, help, [({}, value)])

        about = {name: str(self._begun.settings.get(name)) for name in ("model", "task", "tuning", "seed")}
        labels = {"run": str(self._begun.run), **about}
        yield Family("mezo_run_info", "gauge", "What runs: always 1.", [(labels, 1)])
        yield one("mezo_running", "gauge", "1 while the run goes on, 0 once it has ended.", running)
        yield one("mezo_failed", "gauge", "1 if it ended by an error.", failed)
        yield one("mezo_steps_total", "counter", "Updates done.", self._done)
        yield one("mezo_planned_steps", "gauge", "Updates that the run is to have.", self._begun.num_steps)
        yield one(
            "mezo_zero_gradient_steps_total",
            "counter",
            "Steps since this process began that changed nothing.",
            self._still,
        )
        yield one("mezo_last_record_timestamp_seconds", "gauge", "When it last got on.", self._time)
        for key, (name, help) in _OF_A_STEP.items():
            if key in self._step:
                yield one(name, "gauge", help, self._step[key])
        if self._evaluations:
            samples = [({"split": s, "metric": m}, v) for (s, m), v in self._evaluations.items()]
            yield Family("mezo_evaluation", "gauge", "The last evaluation.", samples)


def render(families: Iterator[Family]) -> str:
    """The text format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{'{' + inside + '}' if inside else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)
