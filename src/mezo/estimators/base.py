"""What every estimator offers. No tensors here: seeds and losses in, slopes out."""

import abc
import dataclasses
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from mezo.config import MeZOConfig
from mezo.types import Direction, Draw, Probe

if TYPE_CHECKING:
    from mezo.weights.weights import Weights


class Estimator(abc.ABC):
    """Pure functions over an explicit state, which most estimators do not need.

    A step asks for losses at probes and tells what they say: a projected gradient for every
    direction. Only these are recorded; a replay calls `directions` alone, which says what they are
    projected gradients along, and must depend on nothing but the draw and the values.

    Estimators are frozen dataclasses. A state is made of numbers, strings, None and tuples of these,
    so that whoever keeps it can write it down.
    """

    epsilon: float

    @property
    def gives_slopes(self) -> bool:
        """Whether a projected gradient is the slope of the loss along its direction, so that a step
        promises to lower the loss by lr * the mean of their squares."""
        return True

    @classmethod
    def configured(cls, config: MeZOConfig, weights: "Weights") -> Self:
        """The estimator as a config wants it; one with settings of its own reads and checks them here."""
        return cls(epsilon=config.epsilon)  # type: ignore[call-arg]

    def with_epsilon(self, epsilon: float) -> Self:
        """The same with another size of perturbation."""
        return dataclasses.replace(self, epsilon=epsilon)  # type: ignore[type-var]

    def with_settings(self, **settings: Any) -> Self:
        """The same with other values of its own fields, for a plugin's name that has some."""
        return dataclasses.replace(self, **settings)  # type: ignore[type-var]

    def init(self) -> Any:
        """The state before the first step."""
        return None

    @abc.abstractmethod
    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        """Where the loss is needed this step."""

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        """Where the loss is needed next, for an estimator that asks by what it found; () when it has all.

        losses: of all probes of this step so far, in order. `tell` is given the losses of all of them.
        """
        return ()

    @abc.abstractmethod
    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        """From losses[i] found at the i-th probe: `width(n)` projected gradients, and the next state.

        Each is a float32 value (`as_float32`), scaled so that the mean over n of projected_grad * z
        estimates the gradient.
        """

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        """What the projected gradients belong to; here, one to each seed."""
        return tuple(Direction(seed, value) for seed, value in zip(draw.seeds, values, strict=True))

    def learning_rate(self, scheduled: float, values: Sequence[float]) -> float:
        """The rate of a step with these values; here, what the config and its schedule say."""
        return scheduled

    def dead_groups(self, losses: Sequence[float]) -> float | None:
        """The share of the groups of a population whose losses are all equal; None where there is no population."""
        return None

    def report(self, state: Any) -> str | None:
        """What to tell a person at the end of a run; None: nothing."""
        return None

    def width(self, n: int) -> int:
        """How many values a step of n seeds has."""
        return n

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        """Which of the `width(n)` values are projected gradients; others say what these are along."""
        return (True,) * n

    def heading_beta(self, step: int) -> float | None:
        """How much of m, the running mean of the gradient, remains after a step; None: it is not used."""
        return None


class Wrapper(Estimator):
    """An estimator around another one, `inner`; what a wrapper does not say is the inner one's."""

    inner: Estimator

    @property
    def epsilon(self) -> float:  # type: ignore[override]
        return self.inner.epsilon

    @property
    def gives_slopes(self) -> bool:
        return self.inner.gives_slopes

    def with_epsilon(self, epsilon: float) -> Self:
        return dataclasses.replace(self, inner=self.inner.with_epsilon(epsilon))  # type: ignore[type-var]

    def init(self) -> Any:
        return self.inner.init()

    def around(self, draw: Draw, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        """What the wrapper makes of the inner estimator's probes."""
        return probes

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        return self.around(draw, self.inner.ask(draw, state))

    def ask_again(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[Probe, ...]:
        return self.around(draw, self.inner.ask_again(draw, losses, state))

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        return self.inner.tell(draw, losses, state)

    def directions(self, draw: Draw, values: Sequence[float]) -> tuple[Direction, ...]:
        return self.inner.directions(draw, values)

    def learning_rate(self, scheduled: float, values: Sequence[float]) -> float:
        return self.inner.learning_rate(scheduled, values)

    def dead_groups(self, losses: Sequence[float]) -> float | None:
        return self.inner.dead_groups(losses)

    def report(self, state: Any) -> str | None:
        return self.inner.report(state)

    def width(self, n: int) -> int:
        return self.inner.width(n)

    def are_slopes(self, n: int) -> tuple[bool, ...]:
        return self.inner.are_slopes(n)

    def heading_beta(self, step: int) -> float | None:
        return self.inner.heading_beta(step)


def as_float32(value: float) -> float:
    """The nearest float32: what the trajectory stores is what is applied."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def losses_of(
    estimator: Estimator, draw: Draw, state: Any, loss_at: Callable[[tuple[Probe, ...]], Sequence[float]]
) -> list[float]:
    """The losses that a step tells its estimator: `loss_at` the probes of `ask`, then of `ask_again` until it has all."""
    losses = list(loss_at(estimator.ask(draw, state)))
    while probes := estimator.ask_again(draw, losses, state):
        losses += loss_at(probes)
    return losses
