"""How a run's steps are measured: what the engine counts, and on request a profile, a trace, or both."""

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mezo.util.atomic_files import replacing, write_text
from mezo.util.profiling import WARM_UP, Profile, median_step_ms, shares


class Measuring:
    """Around every step of a run; does nothing unless a profile or a trace is asked for.

    profile: seconds by span name of every step. On a GPU it synchronizes at the borders of spans.
    trace_steps: write a timeline of so many steps after the first `WARM_UP`, in Chrome's format, to `trace_path`.
    """

    def __init__(
        self, device: torch.device, *, profile: bool = False, trace_steps: int = 0, trace_path: Path | None
    ) -> None:
        self.device, self.profiled = device, profile
        self._path, self._tracer, self._traced = trace_path, None, False
        if trace_path is not None and trace_steps > 0:
            self._tracer = self._profiler(trace_steps)
        self._profile: Profile | None = None
        if profile or self._tracer is not None:
            waits = profile and device.type == "cuda"
            self._profile = Profile(
                synchronize=partial(torch.cuda.synchronize, device) if waits else None,
                annotate=None if self._tracer is None else torch.profiler.record_function,
            )

    def _profiler(self, steps: int) -> Any:
        """torch's profiler of so many steps after the first `WARM_UP`, begun."""
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it reports its progress on stderr
        wanted = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            wanted.append(torch.profiler.ProfilerActivity.CUDA)
        schedule = torch.profiler.schedule(wait=WARM_UP - 1, warmup=1, active=steps, repeat=1)
        tracer = torch.profiler.profile(activities=wanted, schedule=schedule, on_trace_ready=self._export)
        tracer.start()
        return tracer

    def _export(self, tracer: Any) -> None:
        if self._path is None or tracer.step_num <= WARM_UP:  # the run was over before the first of the steps
            return
        self._traced = True
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "trace.json"
            tracer.export_chrome_trace(str(plain))
            with (
                replacing(self._path) as temporary,
                plain.open("rb") as source,
                gzip.open(temporary, "wb") as target,
            ):
                shutil.copyfileobj(source, target)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step; evaluations and saving stay outside."""
        if self._profile is None:
            yield
            return
        with self._profile:
            yield
        if self._tracer is not None and not self._traced:
            self._tracer.step()

    def taken(self) -> dict[str, float] | None:
        """Seconds by span name since the last call, if they are asked for."""
        return self._profile.take() if self._profile is not None and self.profiled else None

    def finish(self) -> bool:
        """End a trace that the run's end cut short. Whether there is a trace, or none was asked for."""
        if self._tracer is not None:
            self._tracer.stop()
        return self._tracer is None or self._traced


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
