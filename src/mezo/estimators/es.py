"""Evolution strategies: a population's losses become weights, by their spread, their ranks, or within groups."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.base import Estimator, as_float32
from mezo.types import Draw, Probe

if TYPE_CHECKING:
    from mezo.weights.weights import Weights

Scores = Literal["z-score", "rank", "group", "none"]


@dataclass(frozen=True)
class EvolutionStrategies(Estimator):
    """g_k = (w+ - w-) / 2 of the weights of theta +- eps z_k: 2n losses, of a population of 2n, for n directions.

    Weights are what a loss is among those of the population:

    - z-score: how many standard deviations it is above the mean;
    - rank: its place, from -1/2 for the least to 1/2 for the largest; equal losses share one;
    - group: the mean of its group taken off, over the root of the mean square of all such differences. The directions
      are in `groups` equal groups, each of which is probed on its own part of the batch;
    - none: the loss over eps, which makes g_k two-point's.

    Only with `none` does the learning rate have the size of two-point's: else g_k does not depend on eps or on the scale
    of the loss. A step whose losses are all equal, in each group, changes nothing: its learning rate is 0.

    Args:
        epsilon: the size of the perturbation, in units of the weights.
        scores: how losses become weights.
        groups: of the directions, each with its own part of the batch.

    Reference: Qiu et al. 2025, Evolution Strategies at Scale, arXiv:2509.24372: z-scores, and a learning rate into which
    eps went (their alpha). Sarkar et al. 2025, EGGROLL, arXiv:2511.16652: groups, by prompt. Salimans et al. 2017,
    arXiv:1703.03864: ranks, and mirrored directions, which the first of these does not have.
    Example:
        >>> from mezo.estimators.es import EvolutionStrategies
        >>> from mezo.types import Draw
        >>> EvolutionStrategies(0.5).tell(Draw(0, (7, 8)), [1.0, -1.0, 0.0, 0.0])[0]
        (1.4142135381698608, 0.0)
        >>> EvolutionStrategies(0.5, "rank").tell(Draw(0, (7, 8)), [9.0, 0.0, 1.0, 0.5])[0]
        (0.5, 0.1666666716337204)
    """

    epsilon: float = 1e-3
    scores: Scores = "z-score"
    groups: int = 1

    @classmethod
    def configured(cls, config: MeZOConfig, weights: "Weights") -> Self:
        """Raises MezoError where directions or rows cannot be cut into the groups."""
        for name in ("num_directions", "batch_size"):
            if getattr(config, name) % config.groups:
                raise MezoError(
                    f"groups={config.groups} does not divide {name}={getattr(config, name)}: each group has as many "
                    "directions, and as many rows; change one of them"
                )
        return cls(config.epsilon, config.scores, config.groups)

    @property
    def gives_slopes(self) -> bool:
        return self.scores == "none"

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        n = len(draw.seeds)
        rows = [None if self.groups == 1 else (k * self.groups // n, self.groups) for k in range(n)]
        return tuple(
            Probe(seed, sign * self.epsilon, rows=own)
            for seed, own in zip(draw.seeds, rows, strict=True)
            for sign in (+1, -1)
        )

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        if not all(map(isfinite, losses)):
            return (float("nan"),) * len(draw.seeds), state  # which the caller reports
        of = self._weights(losses)
        return tuple(
            as_float32((plus - minus) / 2) for plus, minus in zip(of[0::2], of[1::2], strict=True)
        ), state

    def learning_rate(self, scheduled: float, values: Sequence[float]) -> float:
        return scheduled if any(values) else 0.0

    def dead_groups(self, losses: Sequence[float]) -> float:
        return fmean(len(set(group)) == 1 for group in self._grouped(losses))

    def _weights(self, losses: Sequence[float]) -> list[float]:
        if self.scores == "none":
            return [loss / self.epsilon for loss in losses]
        if self.scores == "rank":
            return _ranks(losses)
        grouped = self._grouped(losses) if self.scores == "group" else [losses]
        centred = [loss - fmean(group) for group in grouped for loss in group]
        if all(
            len(set(group)) == 1 for group in grouped
        ):  # whose mean need not be equal to them, for rounding
            return [0.0] * len(losses)
        spread = sqrt(fsum(c * c for c in centred) / len(centred))
        return [c / spread if spread else 0.0 for c in centred]

    def _grouped(self, losses: Sequence[float]) -> list[Sequence[float]]:
        size = len(losses) // self.groups
        return [losses[start : start + size] for start in range(0, len(losses), size)]


def _ranks(losses: Sequence[float]) -> list[float]:
    """Places among the losses, in [-1/2, 1/2]: the mean of the places of equal ones."""
    order = sorted(losses)
    places = [(bisect_left(order, loss) + bisect_right(order, loss) - 1) / 2 for loss in losses]
    return [place / max(1, len(losses) - 1) - 0.5 for place in places]
