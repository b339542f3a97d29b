"""The cost of a step on many workers: a model of a few formulas and a few rates.

A copy of the weights is cut over TP workers, and DP copies share a step of M microbatches of T tokens, at n
directions of two probes. Of the parameters N, each worker has N / TP in b bytes. A step is, on each worker,

    forward     max(2 N 2n T m / (TP F), N b m / (TP W)): products at F FLOP/s, or reading the weights at
                W bytes/s; m = ceil(M / DP) microbatches, and both probes of a direction in one reading
    noise       n N m / (TP R): both perturbed weights of a direction at R elements/s
    update      N (u1 + (n - 1) u2) / TP: u1 seconds an element for one direction, u2 for each further one
    sums        TP > 1: two a layer, of the activations a = 2n T m H b bytes: 2 (TP - 1) / TP a / L + 2 (TP - 1) l
    losses      DP > 1: one all-gather of 8 + 8 (2n m) bytes a rank over a ring: (DP - 1) (bytes / B + k)

with L and B the bandwidths, in bytes/s, inside a copy and between copies, l and k the time a message takes.
Left out: attention's own products (they grow with the square of a row's length), what is not a product,
waiting for the slowest worker, evaluation, starting.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that its cost depends on."""

    name: str
    parameters: float
    layers: int
    hidden: int


# Parameters, layers and width of published models of these sizes (OPT's, but for 70B: Llama 2's).
SHAPES = (
    Shape("1.3B", 1.3e9, 24, 2048),
    Shape("6.7B", 6.7e9, 32, 4096),
    Shape("13B", 13e9, 40, 5120),
    Shape("30B", 30e9, 48, 7168),
    Shape("70B", 69e9, 80, 8192),
    Shape("175B", 175e9, 96, 12288),
)


@dataclass(frozen=True)
class Machine:
    """Rates of one worker, and between workers."""

    name: str
    flops: float  # of matrix products, a second
    memory: float  # bytes a second
    pairs: float  # elements a second, of which both perturbed values are made
    update: float  # elements a second, moved along one direction
    update_more: float  # elements a second, for each further direction
    inside: float  # bytes a second between workers that share a copy
    inside_latency: float  # seconds a message
    between: float  # bytes a second between copies
    between_latency: float


@dataclass(frozen=True)
class Work:
    """The work of a step."""

    tokens: int = 16 * 64  # of a microbatch
    microbatches: int = 1
    directions: int = 1
    bytes_an_element: int = 2  # of the weights and activations

    @property
    def probes(self) -> int:
        return 2 * self.directions


@dataclass(frozen=True)
class Cost:
    """Of one step, on each worker."""

    forward: float  # seconds, as all of the next
    noise: float
    update: float
    sums: float
    losses: float
    weight_bytes: float  # held
    bytes_inside: float  # sent to workers of the same copy
    bytes_between: float  # this worker's message to the other copies

    @property
    def seconds(self) -> float:
        return self.forward + self.noise + self.update + self.sums + self.losses


def cost(shape: Shape, machine: Machine, work: Work, tp: int = 1, dp: int = 1) -> Cost:
    """Of one step of `work` on tp * dp workers."""
    mine = math.ceil(work.microbatches / dp)
    held = shape.parameters / tp
    passes = work.probes * work.tokens * mine
    products = 2 * held * passes / machine.flops
    reading = held * work.bytes_an_element * mine * work.directions / machine.memory
    activations = passes * shape.hidden * work.bytes_an_element
    a_sum = 2 * (tp - 1) / tp * activations / machine.inside + 2 * (tp - 1) * machine.inside_latency
    message = 8 + 8 * work.probes * mine if dp > 1 else 0
    return Cost(
        forward=max(products, reading),
        noise=work.directions * held * mine / machine.pairs,
        update=held * (1 / machine.update + (work.directions - 1) / machine.update_more),
        sums=2 * shape.layers * a_sum if tp > 1 else 0.0,
        losses=(dp - 1) * (message / machine.between + machine.between_latency),
        weight_bytes=held * work.bytes_an_element,
        bytes_inside=2 * shape.layers * 2 * (tp - 1) / tp * activations,
        bytes_between=message,
    )


def efficiency(shape: Shape, machine: Machine, work: Work, tp: int, dp: int) -> float:
    """The share of tp * dp workers' time that one copy on tp workers would need for the same step."""
    return cost(shape, machine, work, tp).seconds / (dp * cost(shape, machine, work, tp, dp).seconds)
