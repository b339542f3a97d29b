"""Steps in the words of `cpu_table`, in memory that lives as long as a kernel works by them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mezo.noise import cpu_table as t
from mezo.noise import rounding as roundings
from mezo.noise.layout import check_directions
from mezo.noise.sequential_updates import Step


@dataclass(frozen=True)
class Turns:
    words: np.ndarray  # (steps, STEP_WORDS) int64
    kept: tuple[np.ndarray, ...]  # what the words have addresses of

    @property
    def address(self) -> int:
        return self.words.ctypes.data

    @property
    def most(self) -> int:
        """Directions of the step that has the most."""
        return int(self.words[:, t.STEP_DIRECTIONS].max(initial=0))

    @classmethod
    def of(cls, steps: Sequence[Step], dtype: torch.dtype, rounding: str, kind: str) -> "Turns":
        """For weights of one element type. Raises MezoError if seeds and coefficients are not as many."""
        for step in steps:
            check_directions(step.seeds, step.coefficients)
        modes = [roundings.of_update(dtype, rounding, kind, step.seeds, step.coefficients) for step in steps]
        seeds = _keys([seed for step in steps for seed in step.seeds])
        coefficients = np.array([a for step in steps for a in step.coefficients], np.float32)
        levels = np.array([mode.levels for mode in modes], np.float32).reshape(len(steps), 5)
        directions = np.array([len(step.seeds) for step in steps], np.int64)
        first = np.cumsum(directions) - directions
        words = np.zeros((len(steps), t.STEP_WORDS), np.int64)
        words[:, t.STEP_SEEDS] = seeds.ctypes.data + first * seeds.itemsize
        words[:, t.STEP_COEFFICIENTS] = coefficients.ctypes.data + first * coefficients.itemsize
        words[:, t.STEP_DIRECTIONS] = directions
        words[:, t.STEP_DECAY] = np.array([step.decay for step in steps], np.float32).view(np.int32)
        words[:, t.STEP_ROUNDING] = [mode.number for mode in modes]
        words[:, t.STEP_ROUNDING_SEED] = _keys([step.rounding_seed for step in steps])
        words[:, t.STEP_LEVELS] = levels.ctypes.data + np.arange(len(steps)) * levels.strides[0]
        return cls(words, (seeds, coefficients, levels))


def _keys(seeds: Sequence[int]) -> np.ndarray:
    """(n,) int64: the 64 bits of integers of either sign."""
    return np.array([int(seed) & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64).view(np.int64)
