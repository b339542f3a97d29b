"""How a run's steps are measured: what the engine counts, and on request a profile, a trace, or both."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from mezo.engines.base import Engine
from mezo.util.atomic_files import replacing, write_text
from mezo.util.profiling import WARM_UP, Profile, median_step_ms, shares


class Counted(NamedTuple):
    """What an engine has counted, all probes together: since it was made, or between two moments."""

    asked: int  # tokens that the probes would take with nothing reused
    computed: int  # tokens that went through the model, padding included
    reused: int  # tokens that were asked for and not computed again
    seconds_saved: float

    @classmethod
    def of(cls, engine: Engine) -> Self:
        counts = engine.counts
        return cls(counts.asked, counts.computed, counts.reused, counts.seconds_saved)

    def __sub__(self, earlier: "Counted") -> "Counted":
        return Counted(
            self.asked - earlier.asked,
            self.computed - earlier.computed,
            self.reused - earlier.reused,
            self.seconds_saved - earlier.seconds_saved,
        )


class Measuring:
    """What is done around every step of a run; nothing at all unless one of the two is asked for.

    profile: seconds by span name of every step. On a GPU it waits for the device at every border of
        a span, because a span would otherwise be the time in which its kernels were queued.
    trace_steps: write a timeline of so many steps, in Chrome's trace format, to `trace_path`, after
        the first `WARM_UP`.
    """

    def __init__(
        self, device: torch.device, *, profile: bool = False, trace_steps: int = 0, trace_path: Path | None
    ) -> None:
        self.device, self.profiled = device, profile
        self._tracer: _Tracer | None = None
        if trace_path is not None and trace_steps > 0:
            self._tracer = _Tracer(trace_path, trace_steps, device)
        self._profile: Profile | None = None
        if profile or self._tracer is not None:
            self._profile = Profile(
                synchronize=_synchronizer(device) if profile else None,
                annotate=None if self._tracer is None else torch.profiler.record_function,
            )

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step; evaluations and saving stay outside."""
        if self._profile is None:
            yield
            return
        if self._tracer is not None:
            self._tracer.begin_step()
        with self._profile:
            yield
        if self._tracer is not None:
            self._tracer.end_step()

    def taken(self) -> dict[str, float] | None:
        """Seconds by span name since the last call, if they are asked for."""
        return self._profile.take() if self._profile is not None and self.profiled else None

    def finish(self) -> bool:
        """End a trace that the run's end cut short. Whether there is a trace, or none was asked for."""
        return self._tracer is None or self._tracer.finish()


def _synchronizer(device: torch.device) -> Callable[[], None] | None:
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None


class _Tracer:
    """torch's profiler over some steps; the file is written when the last of them is done."""

    def __init__(self, path: Path, steps: int, device: torch.device) -> None:
        self._path, self._device, self._end = path, device, WARM_UP + steps
        self._done = 0
        self._profiler: Any = None
        self._recording = self._written = False

    def begin_step(self) -> None:
        if self._done == WARM_UP:
            wanted = [torch.profiler.ProfilerActivity.CPU]
            if self._device.type == "cuda":
                wanted.append(torch.profiler.ProfilerActivity.CUDA)
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it reports its progress on stderr
            self._profiler = torch.profiler.profile(activities=wanted)
            self._profiler.start()
            self._recording = True

    def end_step(self) -> None:
        self._done += 1
        if self._done == self._end:
            self.finish()

    def finish(self) -> bool:
        """Stop recording and write what there is, once. Whether a trace was written, now or before."""
        if self._profiler is not None and not self._written:
            if self._recording:
                self._recording = False
                self._profiler.stop()
            _export(self._profiler, self._path)
            self._written, self._profiler = True, None
        return self._written


def _export(profiler: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        with replacing(path) as temporary, plain.open("rb") as source, gzip.open(temporary, "wb") as target:
            shutil.copyfileobj(source, target)


def write_profile(path: Path, steps: Sequence[dict[str, float]], device: torch.device, matmul: str) -> None:
    """profile.json: the median step, each span's median and share of it, and what multiplied matrices."""
    left_out = WARM_UP if len(steps) > WARM_UP else 0
    values = {
        "steps": len(steps) - left_out,
        "warm_up_steps_left_out": left_out,
        "device": str(device),
        "matmul": matmul,
        "waits_for_device": device.type == "cuda",
        "median_step_ms": round(median_step_ms(steps), 4),
        "spans": {
            s.name: {"median_ms": round(s.median_ms, 4), "share": round(s.share, 4)} for s in shares(steps)
        },
    }
    write_text(path, json.dumps(values, indent=2) + "\n")
