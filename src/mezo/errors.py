"""Mistakes a person can mend: one line, no traceback, exit status 2 at the command line."""

import difflib
from collections.abc import Iterable


class MezoError(ValueError):
    """What was expected, what was found, where, and what to do about it.

    The command line prints it in one line and exits with 2.

    Example:
        >>> import mezo
        >>> mezo.MeZOConfig.build(tuning="lorra")
        Traceback (most recent call last):
        mezo.errors.MezoError: unknown tuning mode 'lorra'; did you mean 'lora'? Choices: full, head, lora, norms, prefix
    """

    of_all_ranks = False  # raised by every process of a run alike: the first one's word is enough


class MissingSplit(MezoError):
    """A data set that is there has no split of the wanted name."""


def near(name: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'sst2'? Choices: ..."`, to end a message about an unknown name."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else "."
    return f"{hint} Choices: {', '.join(choices)}"
