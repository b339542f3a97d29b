"""Random orders that are the same on every machine, in every version of NumPy.

A key is hashed (BLAKE2b) from what the order is for; element i then gets the i-th output of
SplitMix64 (Steele, Lea, Flood 2014) started at that key, and the order is the order of these.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from mezo.errors import MezoError
from mezo.events import MezoWarning
from mezo.util.registry import look_up


@lru_cache(maxsize=2)  # a batch reaches into two epochs at most
def permutation(n: int, purpose: str, *parts: str | int) -> np.ndarray:
    """A random order of range(n), (n,) int64, read-only: a pure function of the arguments."""
    text = ":".join([purpose, *map(str, parts)])
    key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
    order = np.argsort(_splitmix64(key, n), kind="stable")
    order.flags.writeable = False
    return order


def _splitmix64(key: int, n: int) -> np.ndarray:
    """Outputs 1 to n of SplitMix64 from state `key`, (n,) uint64; arithmetic is modulo 2**64."""
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def subset(n: int, size: int, seed: int) -> list[int]:
    """`size` of range(n), or all if there are no more, ascending. Smaller subsets lie in larger ones."""
    return sorted(permutation(n, "subset", seed)[:size].tolist())


def shots(labels: Sequence[int], words: Sequence[str], k: int, seed: int) -> list[int]:
    """The indices of k examples of every class, ascending; all of a class that has fewer, with a warning.

    Raises MezoError if a class has none.
    """
    chosen: list[int] = []
    few: list[str] = []
    order = permutation(len(labels), "shots", seed)
    of_place = np.asarray(labels, dtype=np.int64)[order]
    for label, word in enumerate(words):
        mine = order[of_place == label][:k].tolist()
        if not mine:
            raise MezoError(
                f"expected {k} examples of every class, found none of class {label} ({word.strip()}); "
                "give more data"
            )
        if len(mine) < k:
            few.append(f"{len(mine)} of class {label} ({word.strip()})")
        chosen += mine
    if few:
        text = f"expected {k} examples of every class, found only {', '.join(few)}: all of them are taken"
        warnings.warn(text, MezoWarning, stacklevel=2)
    return sorted(chosen)


def share_of(text: str) -> float:
    """The share in "10%", between 0 and 1. Raises MezoError if it is anything else."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not text.endswith("%") or not 0 < share < 1:
        raise MezoError(f"expected split_sizes as three numbers or a share such as 10%, found {text!r}")
    return share


def sizes_of(sizes: tuple[int, int, int] | str, n: int, *, all_left: bool) -> tuple[int, int, int]:
    """(train, validation, test) sizes for n rows. all_left: what is not held out is all to train on."""
    if isinstance(sizes, str):
        return n, max(1, round(share_of(sizes) * n)), 0
    return (n if all_left else sizes[0], *sizes[1:])


def split_indices(
    n: int, split: str, sizes: tuple[int, int, int], seed: int, *, whole: bool, eval_seed: int | None = None
) -> list[int]:
    """Which of n rows are in a split of (train, validation, test) `sizes`, ascending.

    What is held out is drawn by `eval_seed` (default: `seed`), and the rows to train on by `seed` from the rest.

    whole: the rows are all there is, and the three splits are drawn from them, none shared. Else they
    are those of the split that this one is drawn from: the training rows for "train" and "validation".
    Train takes what is left where there is less than its size, test what there is.

    Raises MezoError if nothing is left to train on, or the split is not one of these.
    """
    train, validation, test = sizes
    order = permutation(n, "split", seed if eval_seed is None else eval_seed).tolist()
    if split == "test" and not whole:
        return sorted(order[:test])
    held_out = validation + (test if whole else 0)
    if n <= held_out:
        raise MezoError(
            f"expected more than {held_out} examples, to hold out that many and train on the rest, found {n}; "
            "ask for smaller split_sizes"
        )
    out = set(order[:held_out])
    parts = {
        "validation": order[:validation],
        "test": order[validation:held_out],
        "train": [i for i in permutation(n, "split", seed).tolist() if i not in out][:train],
    }
    return sorted(look_up(parts, split, "split"))
