"""Spans count exclusively, by thread, and only while somebody profiles."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.util import profiling
from mezo.util.profiling import NAMES, WARM_UP, Profile, median_step_ms, shares, span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time is what its one element says."""
    now = [0.0]
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])
    return now


def test_an_inner_span_is_not_counted_in_the_outer(clock: list[float]) -> None:
    with Profile() as profile:
        clock[0] += 1
        with span("forward"):
            clock[0] += 2
            with span("noise"):
                clock[0] += 4
            clock[0] += 8
            with span("forward"):
                clock[0] += 16
        clock[0] += 32
    assert profile.take() == {"other": 33.0, "forward": 26.0, "noise": 4.0}


def test_only_what_is_inside_the_profile_counts(clock: list[float]) -> None:
    profile = Profile()
    for _ in range(2):
        with profile, span("update"):
            clock[0] += 1
        with span("update"):
            clock[0] += 100
    assert profile.take() == {"other": 0.0, "update": 2.0}
    assert profile.take() == {}


def test_what_is_taken_inside_a_span_is_counted_up_to_then(clock: list[float]) -> None:
    with Profile() as profile, span("logging"):
        clock[0] += 1
        assert profile.take() == {"other": 0.0, "logging": 1.0}
        clock[0] += 2
    assert profile.take() == {"logging": 2.0, "other": 0.0}


def test_a_span_that_fails_is_closed(clock: list[float]) -> None:
    with Profile() as profile:
        with contextlib.suppress(KeyError), span("forward"), span("noise"):
            clock[0] += 1
            raise KeyError
        clock[0] += 2
    assert profile.take() == {"other": 2.0, "forward": 0.0, "noise": 1.0}


def test_a_span_may_outlast_the_profile(clock: list[float]) -> None:
    profile = Profile()
    left_open = contextlib.ExitStack()
    with profile:
        left_open.enter_context(span("forward"))
        clock[0] += 1
    clock[0] += 1
    left_open.close()
    assert profile.take() == {"other": 0.0, "forward": 1.0}


def test_a_profile_inside_another_counts_alone(clock: list[float]) -> None:
    with Profile() as outer:
        with Profile() as inner, span("noise"):
            clock[0] += 1
        with span("head"):
            clock[0] += 2
    assert inner.take() == {"other": 0.0, "noise": 1.0}
    assert outer.take() == {"other": 1.0, "head": 2.0}


def test_other_threads_do_not_count() -> None:
    def elsewhere() -> None:
        with span("noise"):
            pass

    with Profile() as profile:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert set(profile.take()) == {"other"}


def test_the_device_is_waited_for_at_every_border() -> None:
    waits: list[str] = []
    with Profile(synchronize=lambda: waits.append("wait")), span("forward"):
        waits.append("inside")
    assert waits == ["wait", "wait", "inside", "wait", "wait"]
    with span("forward"):
        pass
    assert len(waits) == 5


def test_spans_carry_the_marks_of_a_tracer() -> None:
    marks: list[str] = []

    @contextlib.contextmanager
    def mark(name: str) -> Iterator[None]:
        marks.append(f"{name} begins")
        yield
        marks.append(f"{name} ends")

    with Profile(annotate=mark), span("forward"), span("noise"):
        pass
    assert marks == ["forward begins", "noise begins", "noise ends", "forward ends"]


seconds = st.floats(0, 1e3)
steps = st.lists(st.dictionaries(st.sampled_from([*NAMES, "more"]), seconds, min_size=1), max_size=6)


@given(steps)
def test_shares_are_of_the_whole(steps: list[dict[str, float]]) -> None:
    found = shares(steps)
    names = [s.name for s in found]
    assert [n for n in names if n in NAMES] == list(NAMES)
    counted = steps[WARM_UP:] or steps
    whole = sum(sum(s.values()) for s in counted)
    # at most 6 x 8 terms, each sum rounded to within 2^-53 of itself
    assert sum(s.share for s in found) == pytest.approx(1.0 if whole else 0.0, rel=1e-13)
    assert min(s.median_ms for s in found) >= 0


def test_steps_that_compile_are_left_out() -> None:
    steps = [{"noise": 100.0}, {"noise": 50.0}, {"noise": 1.0}, {"noise": 3.0, "other": 2.0}]
    by_name = {s.name: s for s in shares(steps)}
    assert by_name["noise"].median_ms == 2000.0
    assert by_name["noise"].share == 4 / 6
    assert by_name["head"] == ("head", 0.0, 0.0)
    assert median_step_ms(steps) == 3000.0
    assert median_step_ms(steps[:1]) == 100_000.0
    assert median_step_ms([]) == 0.0
