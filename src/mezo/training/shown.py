"""A few evaluated examples as text: the prompt, what was expected, and what the model answered."""

from collections.abc import Sequence
from typing import Any

from mezo.engines.transformers.engine import TransformersEngine
from mezo.scoring import Example
from mezo.training.evaluation import ModelAnswers
from mezo.util.writing import LINE

_NEVER = "\0"  # in no answer: answers that end with an end token may have several lines


def shown(
    engine: TransformersEngine,
    examples: Sequence[Example],
    answers: ModelAnswers,
    *,
    has_candidates: bool,
    ends: bool,
) -> list[dict[str, Any]]:
    """The examples for people.

    Args:
        engine: of the evaluated model; it writes answers here where the evaluation needed none.
        examples: the first of those that were evaluated.
        answers: of the evaluation.
        has_candidates: whether the task is a choice between candidates.
        ends: whether an answer ends with an end token, and not with its line.

    Returns:
        For each: `prompt`, `expected` (all that is right), and `chosen` or `written`. A masked model writes nothing.
    """
    tokenizer: Any = engine.tokenizer

    def text(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    outputs = answers.outputs
    if not has_candidates and not outputs and engine.kind == "causal":
        outputs = engine.generate(examples, stop=_NEVER if ends and engine.writing.stop == LINE else None)
    found: list[dict[str, Any]] = []
    for n, example in enumerate(examples):
        right = [text(example.candidates[c]) for c in example.right]
        entry = {"prompt": text(example.prompt), "expected": list(example.references) or right}
        if has_candidates:
            entry["expected"], entry["chosen"] = right, text(example.candidates[answers.choices[n]])
        if outputs:
            entry["written"] = outputs[n]
        found.append(entry)
    return found
