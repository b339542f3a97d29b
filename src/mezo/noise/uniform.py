"""Uniform numbers for sampling: a function of (key, sample, position)."""

import numpy as np
from numpy.typing import NDArray

from mezo.noise.seeds import SAMPLING
from mezo.noise.spec import philox


def uniforms(key: int, sample: int, count: int) -> NDArray[np.float64]:
    """(count,) numbers strictly between 0 and 1, those of positions 0 on.

    Position p is word p mod 4 of Philox(key, counter = (p / 4, 0, sample, 4)), w: (w + 1/2) / 2^32.
    """
    words = philox(np.arange(-(-count // 4), dtype=np.uint64), sample, SAMPLING, key)
    return (np.stack(words, axis=1).reshape(-1)[:count].astype(np.float64) + 0.5) / 2**32
