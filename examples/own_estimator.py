"""A new estimator: the slope along z from three points, for a loss that bends.

    g = (4 L(theta + eps z / 2) - L(theta + eps z) - 3 L(theta)) / eps

which is exact for a parabola, from n shared evaluations of L(theta) and 2 more for each direction. In the package
itself it would be a file in `src/mezo/estimators/` and a line in its table (CONTRIBUTING.md).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mezo
from mezo.estimators.base import Estimator, as_float32
from mezo.types import THETA, Draw, Probe


@dataclass(frozen=True)
class ThreePoint(Estimator):
    """2n + 1 losses for n directions."""

    epsilon: float = 1e-3

    def ask(self, draw: Draw, state: Any = None) -> tuple[Probe, ...]:
        """Where the loss is needed: theta, and two points on one side of it for each direction."""
        ahead = (Probe(seed, scale * self.epsilon) for seed in draw.seeds for scale in (0.5, 1.0))
        return (THETA, *ahead)

    def tell(self, draw: Draw, losses: Sequence[float], state: Any = None) -> tuple[tuple[float, ...], Any]:
        """The projected gradients from the losses at those points."""
        here, pairs = losses[0], zip(losses[1::2], losses[2::2], strict=True)
        return tuple(as_float32((4 * half - whole - 3 * here) / self.epsilon) for half, whole in pairs), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    config = mezo.MeZOConfig.build(
        model=given.model,
        task="demo",
        estimator=ThreePoint,
        num_directions=2,
        learning_rate=1e-5,
        batch_size=8,
        num_steps=given.steps,
        eval_examples=20,
    )
    result = mezo.MeZOTrainer(config).train()
    print(f"loss of the first and the last step: {result.losses[0]:.4f}, {result.losses[-1]:.4f}")


if __name__ == "__main__":
    main()
