"""Names to tensor ids, and steps to seeds: the part of the stream that needs no array library."""

import hashlib
from typing import Final

PERTURBATION: Final = 0  # purposes, the fourth word of a Philox counter
ROUNDING: Final = 1
INITIALISATION: Final = 2
SEED_DERIVATION: Final = 3
SAMPLING: Final = 4

_MASK32: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011) of four 32-bit counter words under two 32-bit key words."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (p1 >> 32) ^ b ^ k0, p1 & _MASK32, (p0 >> 32) ^ d ^ k1, p0 & _MASK32
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return a, b, c, d


def tensor_id(name: str) -> int:
    """The stable 32-bit id of a parameter: blake2b, 4 bytes, little endian, of its canonical name.

    Names of one model may collide (about one chance in 90,000 for 300 names); `Weights` refuses that.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def derive_seed(run_seed: int, step: int, direction: int) -> int:
    """The 64-bit seed of direction `direction` (32 bits) of step `step` (64 bits) of a run (64 bits).

    Words 0 (low) and 1 (high) of Philox(key = run_seed, counter = (step low, step high, direction, 3)).
    """
    counter = (step & _MASK32, (step & _MASK64) >> 32, direction & _MASK32, SEED_DERIVATION)
    low, high, _, _ = philox(counter, (run_seed & _MASK32, (run_seed & _MASK64) >> 32))
    return low | high << 32


def basis_of(seed: int) -> int:
    """The upper half of a seed: what directions of one kept basis have in common."""
    return seed & ~_MASK32


def in_basis(seed: int, basis: int) -> int:
    """A seed of the basis, with the lower half of another seed."""
    return basis_of(basis) | seed & _MASK32


def sampling_key(run_seed: int, step: int, row: int) -> int:
    """The 64-bit key of the draws of one row of a step: the same at every probe.

    Words 0 (low) and 1 (high) of Philox(key = run_seed, counter = (step low, step high, row, 4)).
    """
    counter = (step & _MASK32, (step & _MASK64) >> 32, row & _MASK32, SAMPLING)
    low, high, _, _ = philox(counter, (run_seed & _MASK32, (run_seed & _MASK64) >> 32))
    return low | high << 32


def request_seed(key: int, sample: int) -> int:
    """The seed, 31 bits, of one output of a serving engine, which has a sampler of its own."""
    counter = (sample & _MASK32, 0, 1, SAMPLING)
    return philox(counter, (key & _MASK32, key >> 32))[0] >> 1
