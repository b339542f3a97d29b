"""Batches: every example once an epoch, whatever the order in which steps are asked for."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.data import EncodedDataset
from mezo.errors import MezoError
from mezo.scoring import Example


def numbered(n: int) -> EncodedDataset:
    return EncodedDataset(tuple(Example((i,), ((0,),), 0) for i in range(n)))


def drawn(dataset: EncodedDataset, step: int, size: int, seed: int) -> list[int]:
    return [example.prompt[0] for example in dataset.batch(step, size, seed)]


sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
seeds = st.integers(0, 2**64 - 1)


@given(size=sizes, seed=seeds, first=st.integers(0, 5))
def test_laid_end_to_end_each_epoch_is_a_permutation(size: tuple[int, int], seed: int, first: int) -> None:
    n, batch_size = size
    steps = [drawn(numbered(n), step, batch_size, seed) for step in range((first + 2) * n // batch_size + 1)]
    assert {len(batch) for batch in steps} == {batch_size}
    stream = list(chain.from_iterable(steps))
    for epoch in range(len(stream) // n):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(size=sizes, seed=seeds, steps=st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_a_batch_does_not_depend_on_what_was_asked_before(
    size: tuple[int, int], seed: int, steps: list[int]
) -> None:
    n, batch_size = size
    dataset = numbered(n)
    forwards = [drawn(dataset, step, batch_size, seed) for step in steps]
    backwards = [drawn(numbered(n), step, batch_size, seed) for step in reversed(steps)]
    assert forwards == backwards[::-1]


def test_epochs_and_seeds_differ() -> None:
    dataset = numbered(30)
    assert len({tuple(drawn(dataset, step, 30, seed)) for step in range(3) for seed in range(3)}) == 9


@pytest.mark.parametrize("size", [0, -1, 6])
def test_a_batch_that_cannot_be_names_both_numbers(size: int) -> None:
    with pytest.raises(MezoError, match=rf"batch_size from 1 to 5, .* found {size};"):
        numbered(5).batch(0, size, 0)


def test_it_is_a_sequence() -> None:
    dataset = numbered(3)
    assert len(dataset) == 3
    assert list(dataset) == [dataset[0], dataset[1], dataset[2]]
    assert dataset[1:] == (dataset[1], dataset[2])


@pytest.mark.parametrize(
    ("batch_size", "count", "sizes"),
    [(4, 2, [4, 4]), (4, 9, [4, 4]), (10, 1, [10]), (64, 1, [10]), (64, 3, [10])],
)
def test_a_small_set_gives_as_many_microbatches_as_it_fills(
    batch_size: int, count: int, sizes: list[int]
) -> None:
    batches = numbered(10).microbatches(3, batch_size, count, seed=5)
    assert [len(batch) for batch in batches] == sizes
    flat = [example for batch in batches for example in batch]
    assert flat == numbered(10).batch(3, len(flat), 5)
