"""How long the output is."""

from collections.abc import Mapping
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import Function


def length(least: int = 0, most: int = 200, words: bool = False) -> Function:
    """1 if the output has `least` to `most` characters, or words; less, down to 0, the further it is from that.

    Below `least` it is the share of `least`; above `most` it falls evenly, to 0 at twice as many. So a probe that is
    nearer has a larger reward.

    Args:
        least, most: bounds, both allowed.
        words: count words in place of characters.

    Raises MezoError unless 0 <= least <= most and 1 <= most.

    Example:
        >>> judge = length(least=2, most=4, words=True)
        >>> [judge({}, said) for said in ("one", "one two", "one two three four five", "1 2 3 4 5 6 7 8 9")]
        [0.5, 1.0, 0.75, 0.0]
    """
    if not (type(least) is int and type(most) is int and 0 <= least <= most and most >= 1):
        raise MezoError(
            f"reward 'length': expected whole numbers 0 <= least <= most, found least={least!r:.40}, most={most!r:.40}"
        )

    def judge(row: Mapping[str, Any], output: str) -> float:
        count = len(output.split()) if words else len(output)
        return count / least if count < least else max(0.0, 1.0 - max(0, count - most) / most)

    return judge
