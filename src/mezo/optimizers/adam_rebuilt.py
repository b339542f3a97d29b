"""Adam without buffers: both moments rebuilt from the last seeds, block by block (MeZO, appendix B.2)."""

from dataclasses import dataclass
from typing import Any

import torch

from mezo.optimizers import history as past
from mezo.optimizers.adam import AdamRule
from mezo.optimizers.base import first_seed, sum_of_z
from mezo.optimizers.history import History
from mezo.types import Update
from mezo.weights.weights import Weights


@dataclass(frozen=True)
class AdamRebuilt(AdamRule):
    """Adam on the last `history` gradients, at the memory of SGD and a block of scratch.

    For each block of elements, m and v start at 0 and take in the remembered gradients, oldest first,
    made again from their seeds; then the block moves. Up to step `history` the arithmetic is that of
    `Adam`, operation by operation, so the weights are the same to the bit. Later, m and v lack what came
    before, which Adam weights with beta1^history and beta2^history (0.1% and 4% at 0.9, 0.95 and 64);
    the bias correction counts the gradients that are there, so their scale is right all the same.

    Every step makes the noise of `history` steps: it costs arithmetic instead of memory.

    Reference: Malladi et al. 2023, arXiv:2305.17333, appendix B: Adam without stored moments.
    Example:
        >>> import torch
        >>> from mezo.optimizers import AdamRebuilt
        >>> from mezo.types import Direction, Update
        >>> from mezo.weights.weights import Weights
        >>> weights, optimizer = Weights([("w", torch.zeros(2, 2))]), AdamRebuilt()
        >>> update = Update(0, 0.1, (Direction(7, 1.0),), 1)
        >>> state = optimizer.apply_(weights, optimizer.init(weights), update)
        >>> bool(weights.tunables[0].tensor.any())
        True
    """

    history: int = 64

    def init(self, weights: Weights) -> History:
        return History()

    def step_(self, weights: Weights, state: History, update: Update) -> History:
        state = state.after(update, self.history)
        gradients = [sum_of_z(each) for each in state.recent]

        def adam(n: int, part: slice, values: torch.Tensor) -> None:
            m, v, g, spare = torch.zeros(4, 1, values.numel(), device=values.device)
            for seeds, slopes, scalings, factor in gradients:
                weights.add_to_(g.zero_(), n, part.start, seeds, slopes, scalings=scalings, factor=factor)
                self.take_in_(m, v, g, spare)
            self.move_(values, m, v, len(gradients), update.learning_rate, spare)

        weights.move_(
            adam, decay=self.decay(update), rounding=self.rounding, rounding_seed=first_seed(update)
        )
        return state

    def pack(self, state: History) -> Any:
        return past.pack(state)

    def unpack(self, weights: Weights, packed: Any) -> History:
        return past.unpack(packed)
