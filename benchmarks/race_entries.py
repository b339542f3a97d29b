"""Who races, and where: one line each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BFLOAT16 = {"dtype": "bfloat16"}
_REVIEWS = {"template": "Review: {sentence}\nSentiment:", "label_words": ("Negative", "Positive")}


@dataclass(frozen=True)
class Race:
    """A model, a task and a budget."""

    name: str
    model: str  # causal or masked
    task: str
    tuning: str
    batch_size: int
    passes: int  # forward, of a batch; a two-point step takes two
    epsilon: float
    rates: tuple[float, ...]  # that two-point steps choose from, a third apart
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the config."""
        return {
            "task": self.task,
            "tuning": self.tuning,
            "batch_size": self.batch_size,
            "epsilon": self.epsilon,
            **self.extra,
        }


@dataclass(frozen=True)
class Method:
    """Settings on top of the race's."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    times: tuple[float, ...] = (1.0,)  # its rates, as multiples of the race's; (): it chooses its own
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by tuning mode, instead
    only: str | None = None  # races of this tuning mode
    by_row: bool = False  # a direction for each example
    start_examples: int = 0  # that it scores at most
    losses: float = 2.0  # of a step, in passes of a batch
    measures: float = 0.0  # what a measurement of the rate adds
    backward: bool = False

    def fits(self, race: Race) -> bool:
        return self.only in (None, race.tuning)

    def settings_of(self, race: Race) -> dict[str, Any]:
        return {**self.settings, **({"row_directions": race.batch_size} if self.by_row else {})}

    def rates_of(self, race: Race) -> tuple[float, ...]:
        """The grid, the smallest first; () where the rate is measured."""
        if self.rates:
            return self.rates[race.tuning]
        return tuple(sorted({float(f"{rate * times:.3g}") for rate in race.rates for times in self.times}))

    def start_passes(self, race: Race) -> float:
        """Before the first step, at most; a run says what it took."""
        return self.start_examples / race.batch_size

    def passes_of(self, step: int, first: int, every: int) -> float:
        """Of a step; the first ones, and then one in so many, measure the rate."""
        return self.losses + (self.measures if step < first or step % every == 0 else 0.0)


RACES = {
    race.name: race
    for race in (
        Race("sst2-full-16", "causal", "sst2", "full", 16, 1000, 1e-3, (1e-5, 3e-5, 1e-4), _REVIEWS),
        Race(
            "sst2-lora-16", "causal", "sst2", "lora", 16, 1000, 1e-2, (3e-4, 1e-3, 3e-3), _REVIEWS | _BFLOAT16
        ),
        Race(
            "sst2-lora-64", "causal", "sst2", "lora", 64, 400, 1e-2, (1e-3, 3e-3, 1e-2), _REVIEWS | _BFLOAT16
        ),
        Race("trec-lora-16", "causal", "trec", "lora", 16, 1000, 1e-2, (3e-4, 1e-3, 3e-3), _BFLOAT16),
        Race("masked-trec", "masked", "trec", "full", 16, 2000, 1e-3, (1e-5, 3e-5, 1e-4)),
        Race("masked-sst2", "masked", "sst2", "full", 16, 2000, 1e-3, (1e-5, 3e-5, 1e-4)),
    )
}

_AUTO: dict[str, Any] = {"learning_rate": "auto", "schedule": "linear"}
_LINEAR: dict[str, Any] = {"schedule": "linear"}
_SIGNS: dict[str, Any] = {"noise": "rank-one"}

METHODS = {
    "two-point": Method(),
    "two-point-linear": Method(_LINEAR),
    "auto": Method(_AUTO, (), measures=1),
    "rows": Method({**_LINEAR, **_SIGNS}, (1.0, 3.0), by_row=True),
    "rows-auto": Method({**_AUTO, **_SIGNS}, (), by_row=True, measures=3),
    "norms-auto": Method({**_AUTO, "train": ("norm",), "epsilon": 1e-2}, (), only="full", measures=1),
    "fzoo": Method({**_LINEAR, "estimator": "fzoo", "num_directions": 8, "noise": "rademacher"}, losses=9),
    "cone": Method({**_LINEAR, "estimator": "cone"}),
    # what `mezo train` does for one who chooses no rate
    "default": Method({**_AUTO, "start": "auto"}, (), start_examples=3160, measures=1),
}
BACKWARD = {
    # a backward pass counts as two forward ones
    "adamw": Method(rates={"full": (1e-5, 3e-5, 1e-4), "lora": (1e-4, 3e-4, 1e-3)}, losses=3, backward=True),
}
