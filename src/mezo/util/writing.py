"""How a model writes: what every engine is asked for when text is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mezo.scoring import Example  # which imports numpy: settings do without

LINE = ("\n",)  # where an answer ends if nothing is said (MeZO, appendix E.4)


@dataclass(frozen=True, slots=True)
class Writing:
    """The length of an output, where it ends, and how its tokens are chosen.

    An output also ends with an end token of the model's generation config or of the tokenizer.
    """

    max_new_tokens: int = 32
    # the first of these ends an output, and is no part of it; (): end tokens alone
    stop: tuple[str, ...] = LINE
    temperature: float = 0.0  # 0: always the likeliest token
    top_p: float = 1.0  # draw from the likeliest tokens that have this probability together
    top_k: int = 0  # draw from so many of the likeliest tokens; 0: from all
    samples: int = 1  # outputs for each prompt
    ends: tuple[int, ...] = ()  # tokens that end an output as well, for serving engines

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, so that every output needs a seed."""
        return self.temperature > 0

    def greedily(self, max_new_tokens: int | None = None, stop: str | None = None) -> "Writing":
        """One output of likeliest tokens; None: as long as here, to where it ends here."""
        most = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        return Writing(most, self.stop if stop is None else (stop,))

    def cut(self, text: str) -> str:
        """The text up to the first stop string in it. Raises TypeError if an engine returned something else."""
        if not isinstance(text, str):
            raise TypeError(f"expected text, found {type(text).__name__}")
        return text[: min((text.find(s) for s in self.stop if s in text), default=len(text))]

    def is_over(self, text: str) -> bool:
        """Whether a stop string is in the text."""
        return any(s in text for s in self.stop)


GREEDILY = Writing()


class Seeded(NamedTuple):
    """Which numbers an output is drawn by."""

    key: int  # of its row
    sample: int = 0


def outputs_of(examples: "Sequence[Example]", samples: int) -> "tuple[list[Example], list[Seeded]]":
    """Each example as often as outputs are wanted after it, and what these are drawn by."""
    every = [(example, Seeded(example.key, n)) for example in examples for n in range(samples)]
    return [example for example, _ in every], [seeded for _, seeded in every]
