"""Which parameters a run's `train` patterns name."""

import re
from collections.abc import Iterable, Mapping, Sequence

from mezo.errors import MezoError

_SHOWN = 4  # names in an error


def chosen(
    names: Iterable[str],
    patterns: Sequence[str] | None,
    *,
    of: str = "parameter",
    tied: Mapping[str, str] | None = None,
) -> list[str]:
    """The names in which any of the patterns is found (`re.search`), in their order; None: all of them.

    names: canonical parameter names. of: what they are names of, for people. tied: other names of
    tensors, which select nothing, and the names that do.

    Raises MezoError for a pattern that is no regular expression, and for one that is found in no name.
    """
    names = list(names)
    if patterns is None:
        return names
    found: set[str] = set()
    for pattern in patterns:
        mine = {name for name in names if _compiled(pattern).search(name)}
        if not mine:
            raise MezoError(_nothing(pattern, names, of, tied or {}))
        found |= mine
    return [name for name in names if name in found]


def is_target(name: str, targets: Sequence[str]) -> bool:
    """Whether peft takes a module of this name for one of its target_modules."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise MezoError(f"train={pattern!r}: not a regular expression: {error}") from None


def _nothing(pattern: str, names: list[str], of: str, tied: Mapping[str, str]) -> str:
    for alias, name in tied.items():
        if re.search(pattern, alias):
            return (
                f"train={pattern!r} names no {of} of its own: {alias} is the same tensor as {name} in this model; "
                f"name that one, or tune a copy of the head with tuning=head"
            )
    step = max(1, len(names) // _SHOWN)
    some = ", ".join(names[::step][:_SHOWN])
    return f"train={pattern!r} is found in none of the {len(names)} {of} names, such as {some}"
