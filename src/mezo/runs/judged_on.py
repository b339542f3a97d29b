"""Which runs were evaluated on the same examples, so that their scores can be compared."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

MARK = "*"


class Judged(NamedTuple):
    """What a score is of."""

    examples: int | None = None  # how many; None: not known
    fingerprint: str | None = None  # of their raw rows, as `rows_fingerprint` has it; None: not known


def rows_fingerprint(rows: Iterable[Mapping[str, Any] | None]) -> str | None:
    """A fingerprint of raw rows in any order, whatever tokenizer reads them.

    Numbers count as they are written, so that a CSV file and a JSON file of the same rows are the same examples.

    Args:
        rows: the fields of each; empty ones do not count.

    Returns:
        16 hex digits; None if the rows are not known.

    Example:
        >>> from mezo.runs.judged_on import rows_fingerprint
        >>> rows_fingerprint([{"text": "good", "label": 1}]) == rows_fingerprint([{"label": "1", "text": "good"}])
        True
    """
    digests = []
    for row in rows:
        if row is None:
            return None
        plain = {str(name): _plain(value) for name, value in row.items()}
        kept = {name: value for name, value in plain.items() if not (value is None or value == "")}
        text = json.dumps(kept, sort_keys=True, default=str)
        digests.append(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return blake2b(b"".join(sorted(digests)), digest_size=8).hexdigest() if digests else None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array, or a number of numpy's
        value = value.tolist()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def judged_elsewhere(runs: Mapping[str, Judged]) -> set[str]:
    """The runs that were evaluated on other examples than most of them, or than the first where there is no majority.

    Args:
        runs: what each was evaluated on, by its name.

    Returns:
        Names. A run that does not say which examples it had (of an earlier version) is distinguished by their number.
    """
    known = {name: judged for name, judged in runs.items() if judged.examples is not None}
    exact = [judged for judged in known.values() if judged.fingerprint is not None]
    most = Counter(exact or known.values()).most_common(1)
    return {name for name, judged in known.items() if any(_differ(judged, usual) for usual, _ in most)}


def _differ(one: Judged, other: Judged) -> bool:
    known = {one.fingerprint, other.fingerprint} - {None}
    return one.examples != other.examples or len(known) == 2


def explained(names: Sequence[str]) -> str:
    """What the mark beside a name says, in one line for people."""
    listed = ", ".join(names)
    return (
        f"{MARK} {listed}: evaluated on other examples than the others, so the scores do not compare; "
        "use the same data, --eval-examples and --eval-seed"
    )
