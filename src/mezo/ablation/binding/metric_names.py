"""Metrics in prose, as names of what is computed of every run: metrics.yaml, read once."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from mezo.ablation.binding.text import folded
from mezo.util.parsing import parse_yaml

# The metrics of a task, where a plan only says "performance".
_PERFORMANCE = re.compile(
    r"\b(performance|quality|score|task metrics?|generali[sz]ation|effectiveness|downstream|results?)\b"
)
_TASK = ("accuracy", "f1", "rouge")
# A duration until convergence is no duration of training.
_CONVERGENCE = re.compile(
    r"\b(convergence|converged?) (speed|rate|time)\b|\btime to (convergence|converge|threshold)\b"
)


def metric_names(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of computed metrics, each once; texts that name none of them)."""
    found = [(text, _names(_CONVERGENCE.sub("convergence", folded(text)))) for text in texts]
    names = dict.fromkeys(name for _, of_text in found for name in of_text)
    return tuple(names), tuple(text for text, of_text in found if not of_text)


@cache
def _patterns() -> list[tuple[re.Pattern[str], list[str]]]:
    text = files("mezo.ablation.binding").joinpath("metrics.yaml").read_text(encoding="utf-8")
    return [(re.compile(rf"\b(?:{entry['say']})\b"), entry["compute"]) for entry in parse_yaml(text)]


def _names(text: str) -> list[str]:
    """A text may ask for several: "Task Performance (Accuracy/F1)"."""
    found = [name for pattern, names in _patterns() if pattern.search(text) for name in names]
    unclear = _PERFORMANCE.search(text) and not re.search(r"memory|speed|time|cost|comput", text)
    return [*found, *_TASK] if unclear and not set(found) & set(_TASK) else found
