"""The records that flow through a step, in order: Draw -> Probe -> Direction -> Update."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draw:
    """What is settled of a step before anything is evaluated."""

    step: int  # 0-based
    seeds: tuple[int, ...]  # of its n directions, 64 bits each, unsigned


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """A factor on z for every tuned tensor, in the order of `Weights.tunables`; 0 leaves a tensor alone.

    Compared by identity: whoever makes one keeps it.
    """

    name: str  # for people: "model.layers.3"
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A point at which the loss is asked for: theta + scale * z(seed), or theta + scale * scaling * z(seed)."""

    seed: int
    scale: float  # signed; in the units of theta
    scaling: Scaling | None = None


THETA = Probe(seed=0, scale=0.0)


@dataclass(frozen=True, slots=True)
class Direction:
    """The estimated slope of the loss along z(seed), or along scaling * z(seed)."""

    seed: int
    projected_grad: float  # loss per unit of z, (l+ - l-) / (2 eps); a float32 value
    scaling: Scaling | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """One step, complete: all that is logged, sent between ranks, and replayed."""

    step: int  # 0-based
    learning_rate: float
    directions: tuple[Direction, ...]
    n: int  # of n-SPSA: the estimated gradient is sum(projected_grad * z) / n over the directions
