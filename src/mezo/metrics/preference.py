"""How well a model tells chosen from rejected answers, as a preference objective sees it."""

from collections.abc import Sequence
from statistics import fmean


def preferred(margins: Sequence[float]) -> dict[str, float]:
    """Accuracy: the share of examples whose chosen answer is ahead, a tie for half of one. Margin: by how much, in the mean.

    margins: of each example, the reward of the chosen answer less that of the rejected one. Undefined (nan) if one is.

    Example:
        >>> preferred([0.5, -0.25, 0.0, 0.75])
        {'preference-accuracy': 0.625, 'preference-margin': 0.25}
    """
    mean = fmean(margins)
    share = fmean(1.0 if each > 0 else 0.5 if each == 0 else 0.0 for each in margins)
    return {"preference-accuracy": share if mean == mean else mean, "preference-margin": mean}
