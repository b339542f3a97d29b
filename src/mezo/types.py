"""The records that flow through a step, in order: Draw -> Probe -> Direction -> Update."""

from dataclasses import dataclass

from mezo.noise.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Draw:
    """What is settled of a step before anything is evaluated."""

    step: int  # 0-based
    seeds: tuple[int, ...]  # of its n directions, 64 bits each, unsigned
    run_seed: int = 0

    def seed_of(self, step: int, k: int = 0) -> int:
        """The seed of direction k of any step, for an estimator that goes along an earlier one again."""
        return derive_seed(self.run_seed, step, k)


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """A factor on z for every tuned tensor, in the order of `Weights.tunables`; 0 leaves a tensor alone.

    Compared by identity: whoever makes one keeps it.
    """

    name: str  # for people: "model.layers.3"
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A point at which the loss is asked for: theta + scale * scaling * (z(seed) + drift * m).

    Without a scaling, that is of ones; m is the running mean of the gradient (`mezo.weights.gradient_mean`). With
    `rows` (`mezo.estimators.row_directions`), the loss of these rows alone.
    """

    seed: int
    scale: float  # signed; in the units of theta
    scaling: Scaling | None = None
    drift: float = 0.0  # a float32 value
    # (k, K): of the k-th of K equal parts of the batch; None: of all of it
    rows: tuple[int, int] | None = None

    def factor(self, n: int) -> float:
        """What z, or m + z / drift where there is a drift, is multiplied by in the n-th tensor, but for scale."""
        return (self.scaling.factors[n] if self.scaling else 1.0) * (self.drift or 1.0)

    def scale_in(self, n: int) -> float:
        """`scale` times `factor`: how far the probe is from theta along the noise in the n-th tensor."""
        return self.scale * self.factor(n)


THETA = Probe(seed=0, scale=0.0)


@dataclass(frozen=True, slots=True)
class Direction:
    """The estimated slope of the loss along scaling * (z(seed) + drift * m), as in `Probe`."""

    seed: int
    projected_grad: float  # loss per unit of z, (l+ - l-) / (2 eps); a float32 value
    scaling: Scaling | None = None
    drift: float = 0.0


@dataclass(frozen=True, slots=True)
class Update:
    """One step, complete: all that is logged, sent between ranks, and replayed."""

    step: int  # 0-based
    learning_rate: float
    directions: tuple[Direction, ...]
    n: int  # of n-SPSA: the estimated gradient is sum(projected_grad * z) / n over the directions
    values: tuple[float, ...] = ()  # what `tell` returned and the trajectory holds: float32
    heading_beta: float | None = None  # the share of m that remains after the step; None: there is no m
