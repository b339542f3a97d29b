"""The records that flow through a step, in order: Probe -> Direction -> Update."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """A point at which the loss is asked for: theta + scale * z(seed)."""

    seed: int  # 64 bits, unsigned
    scale: float  # signed; in the units of theta


THETA = Probe(seed=0, scale=0.0)


@dataclass(frozen=True, slots=True)
class Direction:
    """The estimated slope of the loss along z(seed)."""

    seed: int
    projected_grad: float  # loss per unit of z, (l+ - l-) / (2 eps); a float32 value


@dataclass(frozen=True, slots=True)
class Update:
    """One step, complete: all that is logged, sent between ranks, and replayed."""

    step: int  # 0-based
    learning_rate: float
    directions: tuple[Direction, ...]
