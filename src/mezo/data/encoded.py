"""Tokenised examples, and which of them make up the batch of a step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from mezo.data.sampling import permutation
from mezo.errors import MezoError
from mezo.noise.seeds import sampling_key
from mezo.scoring import Example


@dataclass(frozen=True, slots=True)
class EncodedDataset(Sequence[Example]):
    """Examples in the order of their source; `batch` draws from them without replacement."""

    examples: Sequence[Example]

    def batch(self, step: int, batch_size: int, seed: int) -> list[Example]:
        """The examples of a step; see `batch_indices`."""
        return [self.examples[i] for i in self.batch_indices(step, batch_size, seed)]

    def microbatches(self, step: int, batch_size: int, count: int, seed: int) -> list[list[Example]]:
        """The examples of a step of `count` microbatches; of a small set as many of them as it fills, of
        `batch_size` or all its examples."""
        size = min(batch_size, len(self))
        count = min(count, len(self) // size)
        drawn = self.batch(step, size * count, seed)
        examples = [replace(e, key=sampling_key(seed, step, row)) for row, e in enumerate(drawn)]
        return [examples[start : start + size] for start in range(0, len(examples), size)]

    def batch_indices(self, step: int, batch_size: int, seed: int) -> list[int]:
        """Which examples make up a step: a pure function of the arguments, whatever was asked before.

        Epoch e is a random order of all examples by (seed, e); the batches are cut from the epochs
        laid end to end, so every example is seen once in each. Raises MezoError if `batch_size` is
        not between 1 and the number of examples.
        """
        n = len(self.examples)
        if not 1 <= batch_size <= n:
            raise MezoError(
                f"expected a batch_size from 1 to {n}, the number of examples, found {batch_size}; "
                "choose a smaller batch, or give more data"
            )
        places = range(step * batch_size, (step + 1) * batch_size)
        return [int(permutation(n, "epoch", seed, place // n)[place % n]) for place in places]

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return self.examples[index]
