"""Random orders that are the same on every machine, in every version of NumPy.

A key is hashed (BLAKE2b) from what the order is for; element i then gets the i-th output of
SplitMix64 (Steele, Lea, Flood 2014) started at that key, and the order is the order of these.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from mezo.errors import MezoError


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
    """The indices of k examples of every class, ascending. MezoError if a class has fewer."""
    chosen: list[int] = []
    order = permutation(len(labels), "shots", seed)
    of_place = np.asarray(labels, dtype=np.int64)[order]
    for label, word in enumerate(words):
        mine = order[of_place == label][:k].tolist()
        if len(mine) < k:
            raise MezoError(
                f"expected {k} examples of every class, found {len(mine)} of class {label} ({word.strip()}); "
                "ask for fewer shots, or give more data"
            )
        chosen += mine
    return sorted(chosen)
