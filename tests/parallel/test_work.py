"""Every loss of a step is found once, by somebody, in units that do not hang on how many there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.parallel.group import ProcessGroup, shares
from mezo.parallel.start import settled
from mezo.parallel.work import Split, choose, idle, joined, units
from mezo.types import THETA, Probe

SPLITS: list[Split] = ["data", "directions", "both"]
COUNTS = st.integers(1, 9)


def probes_of(n: int, *, theta: bool) -> list[Probe]:
    pairs = [Probe(seed, sign * 1e-3) for seed in range(1, n + 1) for sign in (1, -1)]
    return [THETA, *pairs] if theta else pairs


@given(st.sampled_from(SPLITS), COUNTS, COUNTS, COUNTS, st.booleans())
def test_every_probe_of_every_batch_is_in_one_unit(
    split: Split, batches: int, n: int, among: int, theta: bool
) -> None:
    probes = probes_of(n, theta=theta)
    work = units(split, batches, probes, among)
    assert len(work) == among
    places = [(unit.batch, place) for mine in work for unit in mine for place in unit.probes]
    assert sorted(places) == [(m, p) for m in range(batches) for p in range(len(probes))]


@given(st.sampled_from(SPLITS), COUNTS, COUNTS, COUNTS)
def test_units_are_the_same_for_any_number_of_processes(
    split: Split, batches: int, n: int, among: int
) -> None:
    probes = probes_of(n, theta=True)
    together = {unit for mine in units(split, batches, probes, among) for unit in mine}
    assert together == set(units(split, batches, probes, 1)[0])


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_fair(count: int, among: int) -> None:
    sizes = [len(part) for part in shares(count, among)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1


@given(st.sampled_from(SPLITS), COUNTS, COUNTS, COUNTS)
def test_who_is_idle_is_counted(split: Split, batches: int, n: int, among: int) -> None:
    work = units(split, batches, probes_of(n, theta=False), among)
    assert idle(split, batches, n, among) == sum(not mine for mine in work)


@pytest.mark.parametrize(
    ("batches", "n", "among", "expected"),
    [(4, 1, 2, "data"), (1, 1, 2, "data"), (2, 8, 2, "data"), (1, 4, 2, "directions"), (2, 2, 4, "both")],
)
def test_what_auto_means(batches: int, n: int, among: int, expected: str) -> None:
    assert choose(batches, n, among) == expected


@pytest.mark.parametrize("memory", ["regenerate", "store", "store-layer"])
def test_weights_that_walk_are_walked_alike_or_not_at_all(memory: str) -> None:
    """Two copies that visit other probes would be rounded to other weights."""

    def shared(*, resuming: bool = False, **changes: object) -> MeZOConfig:
        config = MeZOConfig.build(**{"memory": memory, **changes})
        return settled(config, ProcessGroup(0, 2), resuming=resuming, note=lambda text: None)

    assert shared(gradient_accumulation=4).parallel == "data"
    assert shared(memory="materialize", num_directions=2).parallel == "directions"
    for changes in (
        dict(num_directions=2),
        dict(gradient_accumulation=3),
        dict(gradient_accumulation=2, parallel="both"),
        dict(),
    ):
        for resuming in (False, True):
            with pytest.raises(
                MezoError, match="all 2 copies have to visit the same probes; found parallel="
            ):
                shared(resuming=resuming, **changes)


@given(st.sampled_from(SPLITS), COUNTS, COUNTS, COUNTS, st.booleans())
def test_joined_units_ask_for_the_same_in_the_same_order(
    split: Split, batches: int, n: int, among: int, theta: bool
) -> None:
    for own in units(split, batches, probes_of(n, theta=theta), among):
        asked = [(unit.batch, probe) for unit in own for probe in unit.probes]
        found = joined(own)
        assert [(unit.batch, probe) for unit in found for probe in unit.probes] == asked
        assert all(a.batch != b.batch for a, b in zip(found, found[1:], strict=False))
