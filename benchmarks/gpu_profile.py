"""Where a step's time goes on a GPU: launches, the device's share, spans, and the size of scratch blocks."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as tracing

from benchmarks.gpu_child import Settings
from benchmarks.gpu_figures import Figure
from benchmarks.gpu_steps import OBJECTIVE, SHAPES, TINY, Setting, Step, stepping
from benchmarks.reference import Padded
from benchmarks.timing import interleaved, ratio
from benchmarks.workload import copied, pad_of, tuned
from mezo.engines.perturb import probed
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES
from mezo.util.profiling import Profile, shares

TOP = 6  # kernels that are named
BLOCKS = (21, 22, 23, 24, 26)  # powers of two of elements


def measure(settings: Settings) -> None:
    """Of the first shape, 16 rows of 64 tokens, every position scored."""
    plain = (TINY if settings.dry else SHAPES[0]).made(settings.device)
    size, length = (2, 9) if settings.dry else (16, 64)
    chosen = [Setting(tuning, length, False, size) for tuning in ("full", "lora")]
    batch = chosen[0].batch(plain.model.config.vocab_size)
    padded = Padded(batch, OBJECTIVES[OBJECTIVE], pad_of(plain), settings.device)

    def bare(number: int) -> None:
        for _ in range(2):
            padded.logits(plain.model)

    _launches(f"{plain.name}, two bare passes", bare, settings)
    for setting in chosen:
        step = stepping(tuned(copied(plain), setting.tuning).engine(OBJECTIVE), batch)
        step(0)
        _launches(f"{plain.name}, {setting.text}", step, settings, top=TOP)
        _spans(f"{plain.name}, {setting.text}", step, settings)
    Figure("CUDA graphs", "on / off", None, why="not built").say()
    _blocks(plain, bare, batch, settings)


def _launches(what: str, step: Step, settings: Settings, top: int = 0) -> None:
    """Kernels of a step, the time between its first and its last, and the share of it that kernels took."""
    activity = ProfilerActivity.CPU if settings.dry else ProfilerActivity.CUDA
    step(1)
    settings.settle()
    with tracing(activities=[activity]) as trace:
        step(2)
        settings.settle()
    events: list[Any] = [e for e in trace.events() or () if settings.dry or e.device_type.name == "CUDA"]
    if not events:
        Figure(what, "launches", None, why="the profiler saw none").say()
        return
    busy: Counter[str] = Counter()
    for event in events:
        busy[event.name] += event.time_range.elapsed_us()
    Figure(what, "launches", len(events)).say()
    whole = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
    Figure(what, "share of the time that kernels run", sum(busy.values()) / max(whole, 1)).say()
    for name, us in busy.most_common(top):
        Figure(what, f"ms in {name[:60]}", us / 1000).say()


def _spans(what: str, step: Step, settings: Settings) -> None:
    """Shares by the names that a profiled run has."""
    profile, taken = Profile(settings.settle if not settings.dry else None), []
    with profile:
        for number in range(4):
            step(number)
            taken.append(profile.take())
    for name, _, share in shares(taken):
        if share:
            Figure(what, f"share of {name}", share).say()


def _blocks(plain: LoadedModel, bare: Step, batch: Any, settings: Settings) -> None:
    """The step of all weights by the size of the blocks in which perturbed weights are written."""
    step = stepping(tuned(copied(plain), "full").engine(OBJECTIVE), batch)

    def at(size: int) -> Callable[[int], object]:
        def case(number: int) -> None:
            before = probed.BLOCK_ELEMENTS, probed.GPU_BLOCK_BYTES
            probed.BLOCK_ELEMENTS, probed.GPU_BLOCK_BYTES = size, 2 * size  # of bfloat16
            try:
                step(number)
            finally:
                probed.BLOCK_ELEMENTS, probed.GPU_BLOCK_BYTES = before

        return case

    seconds = interleaved(
        {**{str(n): at(1 << n) for n in BLOCKS}, "bare": bare}, 1 if settings.dry else 3, settings.settle
    )
    for n in BLOCKS:
        over = ratio(seconds, str(n), "bare").as_dict()
        Figure.spread(f"{plain.name}, full, blocks of 2^{n} elements", "step / two bare passes", over).say()
