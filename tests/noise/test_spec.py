"""The specification itself: known answers, and the distributions it claims."""

import numpy as np
import pytest
import torch
from scipy import stats

from mezo import noise
from mezo.noise import seeds, spec

# Random123 1.14 (Salmon et al. 2011), tests/kat_vectors, philox4x32 10: counter, key, answer
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    c0, c1, tensor, purpose = counter
    assert seeds.philox((c0, c1, tensor, purpose), key) == answer
    words = spec.philox(np.array([c0 | c1 << 32], np.uint64), tensor, purpose, key[0] | key[1] << 32)
    assert tuple(int(w[0]) for w in words) == answer


def test_tensor_ids_are_stable() -> None:
    # from `printf NAME | b2sum -l 32`, read little endian; a change would orphan every trajectory
    assert noise.tensor_id("model.embed_tokens.weight") == 0x126F5613
    assert noise.tensor_id("") == 0x25CF7112


def test_derived_seeds_are_philox_words_of_purpose_3() -> None:
    run, step, direction = 0xFEDCBA9876543210, (7 << 32) + 5, 3
    low, high, *_ = spec.philox(np.array([step], np.uint64), direction, 3, run)
    assert noise.derive_seed(run, step, direction) == int(low[0]) | int(high[0]) << 32


def test_derived_seeds_differ() -> None:
    found = {noise.derive_seed(r, s, k) for r in (0, 1, 2**64 - 1) for s in range(50) for k in range(8)}
    assert len(found) == 3 * 50 * 8
    assert all(0 <= seed < 2**64 for seed in found)


def test_the_layout_of_elements_is_as_written() -> None:
    e = 128 * 70_000_003 + 32 * 2 + 16 * 1 + 9  # counter 16 B + 9 needs more than 30 bits
    word = spec.philox(np.array([16 * 70_000_003 + 9], np.uint64), 5, 0, 42)[2]
    assert spec.noise(np.array([e]), 5, 42)[0] == spec.box_muller(word)[1][0]
    assert spec.rounding_bits(np.array([e]), 5, 42)[0] == spec.philox(
        np.array([16 * 70_000_003 + 9], np.uint64), 5, 1, 42
    )[2][0] >> np.uint32(16)
    e = 2048 * 5_000_000_000 + 512 * 3 + 16 * 30 + 4  # the counter's high word is in use
    word = int(spec.philox(np.array([16 * 5_000_000_000 + 4], np.uint64), 5, 0, 42)[3][0])
    assert spec.noise(np.array([e]), 5, 42, "rademacher")[0] == (-1 if word >> 30 & 1 else 1)


def test_every_radius_and_angle_gives_a_finite_normal() -> None:
    upper = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    lower = np.arange(1 << 16, dtype=np.uint32)
    for words in (upper, upper | np.uint32(0x3FFF), lower, lower | np.uint32(0xFFFF0000)):
        for half in spec.box_muller(words):
            assert np.isfinite(half).all()
            assert (half != 0).all()
            assert np.abs(half).max() < 4.86


def test_moments_and_distribution() -> None:
    n = 1 << 20
    z = spec.noise(np.arange(n), noise.tensor_id("w"), 2024).astype(np.float64)
    # standard errors of the first four moments of n normals: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n;
    # five of them, so that one test in a million seeds would fail (the seed is fixed)
    for power, (expected, error) in enumerate(((0, 1), (1, 2**0.5), (0, 15**0.5), (3, 96**0.5)), 1):
        assert abs((z**power).mean() - expected) < 5 * error / n**0.5
    assert stats.kstest(z, "norm").pvalue > 1e-3
    sign = spec.noise(np.arange(n), noise.tensor_id("w"), 2024, "rademacher")
    assert set(np.unique(sign)) == {-1.0, 1.0}
    assert abs(sign.mean()) < 5 / n**0.5


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
def test_streams_are_uncorrelated(kind: noise.Kind) -> None:
    """Across seeds (also neighbouring ones), tensors, purposes, and shifts within one stream."""
    n = 1 << 18
    e = np.arange(n)
    base = spec.noise(e, 1, 7, kind)
    others = {
        "next seed": spec.noise(e, 1, 8, kind),
        "high half of the seed": spec.noise(e, 1, 7 + (1 << 32), kind),
        "derived seed": spec.noise(e, 1, noise.derive_seed(7, 0, 0), kind),
        "next tensor": spec.noise(e, 2, 7, kind),
        "another purpose": spec.noise(e, 1, 7, kind, purpose=2),
        **{f"shift {s}": spec.noise(e + s, 1, 7, kind) for s in (1, 16, 32, 64, 128, 512, 2048)},
    }
    for name, other in others.items():
        # a correlation of independent streams has standard error 1 / sqrt n
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / n**0.5, name
        # nor may the squares be correlated: elements 16 apart are two halves of one word
        if kind == "gaussian":
            assert abs(np.corrcoef(base**2, other**2)[0, 1]) < 5 / n**0.5, name


def test_rounding_agrees_with_torch() -> None:
    """An independent check of the oracle: torch rounds to nearest even."""
    bits = np.concatenate(
        [
            np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint32),
            np.arange(0x33000000 - 64, 0x33000000 + 64, dtype=np.uint32),  # 2^-25, half of float16's least
            np.arange(0x38800000 - 9000, 0x38800000 + 9000, 7, dtype=np.uint32),  # its least normal
            np.arange(0x477FE000 - 64, 0x47800000 + 64, 5, dtype=np.uint32),  # its greatest
            np.arange(0x7F7F0000, 0x7F800001, 13, dtype=np.uint32),  # bfloat16's greatest
            np.arange(0, 1 << 17, 17, dtype=np.uint32),  # bfloat16's subnormals
        ]
    )
    x = bits.view(np.float32)
    x = np.concatenate([x, -x])
    for dtype, form in ((torch.bfloat16, spec.BFLOAT16), (torch.float16, spec.FLOAT16)):
        ours, theirs = spec.rounded(x, form), torch.from_numpy(x).to(dtype).float().numpy()
        np.testing.assert_array_equal(ours, theirs)
        assert (np.signbit(ours) == np.signbit(theirs))[~np.isnan(x)].all()
