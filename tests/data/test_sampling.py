"""Orders and samples: permutations, pure, the same everywhere, spread evenly."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.data.sampling import _splitmix64, permutation, shots, split_indices, subset
from mezo.errors import MezoError

seeds = st.integers(0, 2**64 - 1)


@given(n=st.integers(0, 300), seed=seeds, epoch=st.integers(0, 10**9))
def test_an_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(permutation(n, "epoch", seed, epoch).tolist()) == list(range(n))


def test_splitmix64_is_the_published_generator() -> None:
    # The first outputs from seed 1234567, as published with many implementations (Rosetta Code).
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert _splitmix64(1234567, 4).tolist() == expected


def test_orders_do_not_change_between_versions() -> None:
    # A run on record must find its batches again: these numbers may never change.
    assert permutation(10, "epoch", 0, 0).tolist() == [1, 0, 5, 2, 3, 9, 7, 8, 6, 4]


def test_orders_differ_by_seed_purpose_and_epoch() -> None:
    orders = {
        tuple(permutation(50, *parts).tolist())
        for parts in [("epoch", 0, 0), ("epoch", 0, 1), ("epoch", 1, 0), ("subset", 0, 0), ("epoch", 10)]
    }
    assert len(orders) == 5


def test_an_order_cannot_be_changed_behind_the_cache() -> None:
    with pytest.raises(ValueError, match="read-only"):
        permutation(5, "epoch", 0, 0)[0] = 3


def test_every_element_is_as_likely_at_every_place() -> None:
    n, orders = 8, 4000
    counts = np.zeros((n, n))
    for epoch in range(orders):
        counts[np.arange(n), permutation(n, "epoch", 7, epoch)] += 1
    # chi-squared with (n - 1)**2 = 49 degrees of freedom: mean 49, standard deviation 9.9; five of these
    chi_squared = ((counts - orders / n) ** 2 / (orders / n)).sum() * (n - 1) / n
    assert chi_squared < 49 + 5 * 9.9


@pytest.mark.slow
def test_a_million_examples_take_less_than_a_second() -> None:
    start = time.perf_counter()
    permutation(1_000_000, "epoch", 3, 4)
    assert time.perf_counter() - start < 1.0


@given(n=st.integers(1, 100), size=st.integers(1, 120), seed=seeds)
def test_a_subset_is_ascending_and_lies_in_every_larger_one(n: int, size: int, seed: int) -> None:
    chosen = subset(n, size, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n, size)
    assert set(chosen) <= set(subset(n, size + 1, seed)) <= set(range(n))


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=60), k=st.integers(1, 5), seed=seeds)
def test_shots_are_k_of_every_class_or_all_with_a_warning(labels: list[int], k: int, seed: int) -> None:
    counts = [labels.count(label) for label in range(3)]
    if min(counts) == 0:
        with pytest.raises(MezoError, match=rf"found none of class {counts.index(0)} \("):
            shots(labels, ["a", "b", "c"], k, seed)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = shots(labels, ["a", "b", "c"], k, seed)
    assert chosen == sorted(set(chosen))
    assert [[labels[i] for i in chosen].count(label) for label in range(3)] == [min(k, n) for n in counts]
    assert len(caught) == (min(counts) < k)
    assert all(f"{n} of class" in str(caught[0].message) for n in counts if n < k)


def test_splits_do_not_change_between_versions() -> None:
    # As above: a run on record must find its splits again.
    assert split_indices(8, "train", (3, 2, 2), 0, whole=True) == [0, 3, 6]
    assert split_indices(8, "validation", (3, 2, 2), 0, whole=True) == [2, 4]
    assert split_indices(8, "test", (3, 2, 2), 0, whole=True) == [1, 5]


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(MezoError, match="unknown split 'tset'; did you mean 'test'"):
        split_indices(8, "tset", (3, 2, 2), 0, whole=True)
