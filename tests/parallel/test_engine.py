"""Ranks that share a step compute what one alone does; ranks are threads here (processes: test_runs.py)."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.parallel.ranks import in_threads, toy_batches, toy_engine

from mezo.algorithm import draw_of, mezo_step
from mezo.errors import MezoError
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.one_sided import OneSided
from mezo.estimators.row_directions import RowDirections
from mezo.estimators.two_point import TwoPoint
from mezo.optimizers import Momentum
from mezo.parallel.checks import Diverged, agree, theta_checksum
from mezo.parallel.engine import ParallelEngine, RankFailed
from mezo.parallel.group import ProcessGroup
from mezo.parallel.interrupts import TERMINATED, SharedInterrupts
from mezo.parallel.work import Split
from mezo.scoring import pose
from mezo.types import Probe
from mezo.util.interrupts import Terminated

TWO_POINT = TwoPoint(epsilon=1e-3)


def steps(engine: Any, batches: int, n: int, count: int = 2) -> list[list[float]]:
    """The losses of some steps, each followed by its update."""
    found = []
    for step in range(count):
        _, losses, _ = mezo_step(engine, TWO_POINT, toy_batches(batches), draw_of(3, step, n), 1e-3)
        found.append(losses)
    return found


def shared(group: ProcessGroup, split: Split, **options: Any) -> ParallelEngine:
    inner = toy_engine()
    return ParallelEngine(inner, inner.weights, group, split, **options)


def test_microbatches_on_ranks_are_microbatches_to_the_bit() -> None:
    alone = toy_engine()
    expected = steps(alone, batches=3, n=2)

    def work(group: ProcessGroup) -> tuple[Any, str, float]:
        engine = shared(group, "data", check_every=1)
        return steps(engine, batches=3, n=2), engine.weights.checksum(), engine.bytes_a_step

    for losses, theta, sent in in_threads(2, work):
        assert losses == expected
        assert theta == alone.weights.checksum()
        # status and checksum; for ranks with 2 and 1 of 3 microbatches, room for 2, of 4 probes
        assert sent == 8 * (2 + 2 * 4)


@pytest.mark.parametrize("split", ["directions", "both"])
def test_directions_on_ranks_are_directions_one_by_one_to_the_bit(split: Split) -> None:
    one = shared(ProcessGroup(), split)
    expected = steps(one, batches=2, n=3)
    for losses, theta in in_threads(2, lambda g: (steps(e := shared(g, split), 2, 3), e.weights.checksum())):
        assert losses == expected
        assert theta == one.weights.checksum()
    # Against all probes in one pass: a log-probability, of order 10, is a sum of products in float32, which
    # taken in another order differs by some units of 2^-24 relative to its largest terms; 64 of them are 4e-5.
    assert np.allclose(steps(toy_engine(), 2, 3, count=1), expected[:1], rtol=0, atol=4e-5)


@pytest.mark.parametrize("split", ["data", "directions", "both"])
def test_rows_along_their_own_directions_are_shared_to_the_bit(split: Split) -> None:
    """Microbatches whole, or each direction on its own rows of them: as one process does it in the same way."""
    estimator = ExactSums(RowDirections(OneSided(1e-3)))

    def work(group: ProcessGroup) -> tuple[Any, str]:
        inner = toy_engine(noise="rank-one")
        engine = ParallelEngine(inner, inner.weights, group, split)
        found = [
            mezo_step(engine, estimator, toy_batches(2, size=6), draw_of(3, step, 3), 1e-3)[1]
            for step in range(2)
        ]
        return found, inner.weights.checksum()

    one = work(ProcessGroup())
    assert in_threads(2, work) == [one, one]
    alone, losses = toy_engine(noise="rank-one"), one[0][0]
    together = mezo_step(alone, estimator, toy_batches(2, size=6), draw_of(3, 0, 3), 1e-3)[1]
    assert np.allclose(losses, together, rtol=0, atol=4e-5)  # as in the test above
    if split == "data":
        assert losses == together


def test_evaluation_is_shared_to_the_bit() -> None:
    posed = [pose(batch) for batch in toy_batches(3)]
    expected = list(toy_engine().logprobs_each(posed))
    for found in in_threads(2, lambda g: list(shared(g, "data").logprobs_each(posed))):
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_optimizer_s_state_is_that_of_the_engine_inside() -> None:
    inner = toy_engine()
    inner.optimizer = Momentum()
    engine = ParallelEngine(inner, inner.weights, ProcessGroup(), "directions")
    assert engine.holds_theta
    engine.restore(None)
    at_first = inner.state.checksum()
    steps(engine, batches=1, n=1)
    moved = inner.state
    assert moved.checksum() != at_first
    engine.restore(None)
    assert inner.state.checksum() == at_first
    engine.restore(moved)
    assert inner.optimizer.unpack(inner.weights, engine.packed_state()).checksum() == moved.checksum()


def test_only_ones_own_batches_are_prepared() -> None:
    batches = toy_batches(3)

    def work(group: ProcessGroup) -> list[bool]:
        return [type(b) is not tuple for b in shared(group, "data").prepare_each(batches)]

    assert in_threads(2, work) == [[True, False, False], [False, True, True]]


def outcome(work: Any) -> BaseException | None:
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:
        return error
    return None


def test_a_rank_that_fails_stops_all_before_anything_is_written() -> None:
    def work(group: ProcessGroup) -> tuple[BaseException | None, bool]:
        engine = shared(group, "data")
        before = engine.weights.checksum()
        if group.rank == 1:
            engine.inner.losses = lambda *_: 1 / 0  # type: ignore[method-assign]
        error = outcome(lambda: steps(engine, batches=2, n=1))
        return error, engine.weights.checksum() == before

    (first, same), (second, also_same) = in_threads(2, work)
    assert same
    assert also_same
    assert isinstance(first, RankFailed)
    assert "rank 1 of 2" in str(first)
    assert isinstance(second, ZeroDivisionError)


def test_a_loss_that_is_not_finite_stops_all_alike() -> None:
    def work(group: ProcessGroup) -> BaseException | None:
        engine = shared(group, "data")
        if group.rank == 1:
            engine.inner.losses = lambda _, probes: [math.nan] * len(probes)  # type: ignore[method-assign]
        return outcome(lambda: steps(engine, batches=2, n=1))

    first, second = in_threads(2, work)
    assert str(first) == str(second)
    assert type(first) is type(second)
    assert "not finite" in str(first)


@pytest.mark.parametrize(("size", "named"), [(3, "the weights of rank 1 "), (2, "ranks 0, 1 differ")])
def test_a_diverged_rank_is_named(size: int, named: str) -> None:
    def work(group: ProcessGroup) -> tuple[BaseException | None, int]:
        engine = shared(group, "data", check_every=2)
        steps(engine, batches=3, n=1, count=3)
        if group.rank == 1:
            bits = engine.weights.tunables[0].tensor.view(torch.int32)
            bits[3, 5] ^= 1  # the last bit of one element
        return outcome(lambda: steps(engine, batches=3, n=1, count=3)), engine.steps

    for error, done in in_threads(size, work):
        assert isinstance(error, Diverged)
        assert named in str(error)
        assert "the same after 2" in str(error)
        assert done == 4  # compared before every second step


def test_a_signal_to_one_ends_all_after_the_same_step() -> None:
    def work(group: ProcessGroup) -> tuple[BaseException | None, int]:
        engine = shared(group, "data")
        interrupts = SharedInterrupts(engine.signals)

        def run() -> None:
            for step in range(9):
                if step == 2 and group.rank == 1:
                    engine.signals.asked |= TERMINATED
                with interrupts.held():
                    mezo_step(engine, TWO_POINT, toy_batches(2), draw_of(3, step, 1), 1e-3)

        return outcome(run), engine.steps

    for error, done in in_threads(2, work):
        assert type(error) is Terminated
        assert done == 3


def test_the_checksum_sees_every_bit_and_every_place() -> None:
    engine = toy_engine()
    seen = {theta_checksum(engine.weights)}
    for t in engine.weights.tunables:
        for element in (0, t.tensor.numel() - 1):
            bits = t.tensor.view(-1).view(torch.int32)
            bits[element] ^= 1
            seen.add(theta_checksum(engine.weights))
            bits[element] ^= 1
    assert len(seen) == 1 + 2 * len(engine.weights.tunables)


def test_ranks_that_differ_are_named() -> None:
    def work(group: ProcessGroup) -> BaseException | None:
        seed = 7 if group.rank == 2 else 1
        return outcome(lambda: agree(group, {"noise stream": 4, "setting seed": seed}))

    for error in in_threads(3, work):
        assert isinstance(error, MezoError)
        assert "setting seed: ranks 2 of 3 have 7, the others 1" in str(error)
    assert in_threads(2, lambda g: agree(g, {"a": 1.5, "b": None})) == [None, None]


def test_a_probe_of_one_sided_estimates_is_asked_once() -> None:
    engine = shared(ProcessGroup(), "directions")
    probes = [Probe(0, 0.0), Probe(5, 1e-3), Probe(6, 1e-3)]
    (losses,) = engine.losses_each(toy_batches(1), probes)
    apart = [engine.inner.losses(toy_batches(1)[0], [probe])[0] for probe in probes]
    assert losses == apart
