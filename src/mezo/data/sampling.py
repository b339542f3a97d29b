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


def split_indices(n: int, split: str, sizes: tuple[int, int, int], seed: int, *, whole: bool) -> list[int]:
    """Which of n rows are in a split of (train, validation, test) `sizes`, by seed, ascending.

    whole: the rows are all there is, and the three splits are drawn from them, none shared. Else they
    are those of the split that this one is drawn from: the training rows for "train" and "validation".
    Train takes what is left where there is less than its size, test what there is.

    Raises MezoError if nothing is left to train on, or the split is not one of these.
    """
    train, validation, test = sizes
    order = permutation(n, "split", seed).tolist()
    if split == "test" and not whole:
        return sorted(order[:test])
    held_out = validation + (test if whole else 0)
    if n <= held_out:
        raise MezoError(
            f"expected more than {held_out} examples, to hold out that many and train on the rest, found {n}; "
            "ask for smaller split_sizes"
        )
    parts = {
        "validation": order[:validation],
        "test": order[validation:held_out],
        "train": order[held_out : held_out + train],
    }
    return sorted(look_up(parts, split, "split"))
