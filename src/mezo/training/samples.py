"""A few outputs with their rewards, at each evaluation of a run by rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mezo.engines.base import Engine
from mezo.objectives import Objective, OutputObjective
from mezo.resume.recorder import RunFiles
from mezo.runs.samples import Sample
from mezo.scoring import Example

_SAID = 2  # of them, in the terminal
_WIDTH = 160  # characters of each there


@dataclass(frozen=True)
class Samples:
    """Writes the same few examples each time, at theta.

    Args:
        engine, objective, tokenizer: of the run.
        examples: those; none for a run whose objective reads no outputs.
    """

    engine: Engine
    objective: Objective
    tokenizer: Any
    examples: Sequence[Example]

    def take(self, step: int, files: RunFiles, say: Callable[[str], None]) -> None:
        """Write and judge them, tell of the first, and give all to the run's files. Raises MezoError as a reward does."""
        if not isinstance(self.objective, OutputObjective) or not self.examples:
            return
        outputs = self.engine.generate(self.examples)
        rewards = self.objective.each(self.examples, outputs)
        found = [
            Sample(
                step,
                self._text(e.prompt),
                list(e.references) or [self._text(c) for c in e.candidates[e.answer :][:1]],
                output,
                reward,
            )
            for e, output, reward in zip(self.examples, outputs, rewards, strict=True)
        ]
        files.samples(found)
        for each in found[:_SAID]:
            say(f"step {step}, reward {each.reward:.4g}: {_brief(each.output)}")

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


def _brief(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _WIDTH else shown[: _WIDTH - 3] + "..."
