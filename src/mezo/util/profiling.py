"""Where the time of a step goes: named spans, counted only while somebody profiles.

>>> with profile:                    # counts what this thread does inside
...     with span("forward"):
...         with span("noise"): ...  # not counted as forward
>>> profile.take()                   # {"forward": 0.8, "noise": 0.1, "other": 0.0}
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import NamedTuple, Self

OTHER = "other"
NAMES = ("data", "noise", "forward", "head", "update", "logging", OTHER)  # of a step, as a table lists them
WARM_UP = 2  # first steps of a run that compile and allocate: no measure of those that follow


class _Active(threading.local):
    profile: "Profile | None" = None


_NOTHING = nullcontext()
_active = _Active()


def span(name: str) -> AbstractContextManager[None]:
    """Time inside the block counts as `name` in this thread's active profile, if there is one.

    Spans nest: a moment counts for the innermost span alone. Without a profile a span costs a fraction of a
    microsecond.
    """
    profile = _active.profile
    return _NOTHING if profile is None else _Span(profile, name)


class _Span:
    __slots__ = ("_mark", "_name", "_profile")

    def __init__(self, profile: "Profile", name: str) -> None:
        self._profile, self._name = profile, name
        self._mark = None if profile.annotate is None else profile.annotate(name)

    def __enter__(self) -> None:
        if self._mark is not None:
            self._mark.__enter__()
        self._profile.enter(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.leave()
        if self._mark is not None:
            self._mark.__exit__(kind, error, trace)


class Profile:
    """Seconds by span name, of the thread in which it is entered; it may be entered repeatedly.

    synchronize: called wherever a span begins or ends: for CUDA, where a span would be the time of the launches
    alone.
    annotate: name -> a context manager held around every span (a tracer's marks).
    """

    def __init__(
        self,
        synchronize: Callable[[], object] | None = None,
        annotate: Callable[[str], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.annotate, self._synchronize = annotate, synchronize
        self._seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0
        self._before: Profile | None = None

    def __enter__(self) -> Self:
        self._stack = [OTHER]  # afresh: an interrupt may have cut the last block anywhere
        self._before, _active.profile = _active.profile, self
        self._since = self._now()
        return self

    def __exit__(self, *exception: object) -> None:
        self._count()
        _active.profile, self._before = self._before, None
        self._stack = []

    def enter(self, name: str) -> None:
        self._count()
        self._stack.append(name)

    def leave(self) -> None:
        if len(self._stack) > 1:  # else the profile ended inside this span
            self._count()
            self._stack.pop()

    def take(self) -> dict[str, float]:
        """Seconds by name since the last `take`, open spans up to now included; counting starts anew."""
        if self._stack:
            self._count()
        taken, self._seconds = self._seconds, {}
        return taken

    def _count(self) -> None:
        now, name = self._now(), self._stack[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + max(0.0, now - self._since)
        self._since = now

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return time.perf_counter()


class Share(NamedTuple):
    """What one name took of the steps."""

    name: str
    median_ms: float  # of the step's milliseconds under this name
    share: float  # of the time of all steps, 0 to 1


def shares(steps: Sequence[Mapping[str, float]]) -> list[Share]:
    """What each name took, from the seconds by name of every step; `NAMES` first.

    The first `WARM_UP` steps are left out where there are more. Shares add up to 1; medians need not add up to the
    median step.
    """
    steps = steps[WARM_UP:] or steps
    names = [*NAMES[:-1], *sorted({n for s in steps for n in s} - {*NAMES}), OTHER]
    whole = sum(sum(s.values()) for s in steps)
    return [
        Share(
            name,
            1000 * statistics.median([s.get(name, 0.0) for s in steps] or [0.0]),
            sum(s.get(name, 0.0) for s in steps) / whole if whole else 0.0,
        )
        for name in names
    ]


def median_step_ms(steps: Sequence[Mapping[str, float]]) -> float:
    """The median step's milliseconds, all names together, without the first `WARM_UP`; 0 without steps."""
    return 1000 * statistics.median([sum(s.values()) for s in steps[WARM_UP:] or steps] or [0.0])
