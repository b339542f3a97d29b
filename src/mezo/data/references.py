"""Log-probabilities of answers at the weights that a run starts from, kept by row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mezo.errors import MezoError
from mezo.scoring import Example

_KEY = 16  # bytes


def key_of(example: Example) -> bytes:
    """What is asked of the model, which is what its answer depends on."""
    asked = (example.prompt, example.candidates, example.mask_position, example.scored)
    return blake2b(repr(asked).encode(), digest_size=_KEY).digest()


@dataclass(frozen=True)
class References:
    """By row: the log-probability of each of its two answers, the sum over the answer's tokens.

    Args:
        table: `key_of` an example -> log p of its candidates.
    """

    table: Mapping[bytes, tuple[float, float]] = field(default_factory=dict)

    def __contains__(self, example: Example) -> bool:
        return key_of(example) in self.table

    def of(self, example: Example) -> Example:
        """The example with them; as it is where it is not in the table."""
        found = self.table.get(key_of(example))
        return example if found is None else replace(example, reference=found)

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        keys = np.frombuffer(b"".join(self.table), dtype=np.uint8).reshape(-1, _KEY)
        values = np.array(list(self.table.values()), dtype=np.float64).reshape(-1, 2)
        return save({"rows": keys, "logprobs": values})

    @classmethod
    def of_bytes(cls, data: bytes, where: Any) -> "References":
        """Raises MezoError, which names `where`, if it is no such file."""
        try:
            found = load(data)
            keys, values = found["rows"], found["logprobs"]
        except (SafetensorError, KeyError, ValueError) as error:
            raise MezoError(
                f"{where}: expected log-probabilities of the start, by row: {' '.join(str(error).split())[:200]}"
            ) from None
        shapes = keys.shape == (len(values), _KEY) and values.shape == (len(keys), 2)
        if (
            not shapes
            or keys.dtype != np.uint8
            or values.dtype != np.float64
            or not np.isfinite(values).all()
        ):
            raise MezoError(f"{where}: expected finite log-probabilities of two answers for each row")
        pairs = zip(keys, values.tolist(), strict=True)
        return cls({key.tobytes(): (chosen, rejected) for key, (chosen, rejected) in pairs})


class Referenced(Sequence[Example]):
    """Examples with what `of` adds to each when it is asked for."""

    def __init__(self, examples: Sequence[Example], of: Callable[[Example], Example]) -> None:
        self._examples, self._of = examples, of

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        found = self._examples[index]
        return self._of(found) if isinstance(found, Example) else [self._of(each) for each in found]
