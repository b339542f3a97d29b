"""`python -m benchmarks memory`: peak memory of a step over plain inference of the same batch.

Each case runs in a process of its own; the peak is counted after the model is loaded, so it
includes the weights but not the memory used to load them.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from benchmarks.options import (
    DTYPE_NAMES,
    TUNINGS,
    Data,
    Json,
    Many,
    Markdown,
    Model,
    OwnSize,
    Seed,
    Threads,
    known,
    progress,
    show,
)
from benchmarks.processes import environment
from benchmarks.report import Column, Report, Row, of_ratio
from benchmarks.timing import Note, Spread
from mezo.errors import MezoError

BASE = "inference"
CASES = {
    BASE: "two forward passes with full logits, nothing computed from them",
    "loaded": "the same, in a process that holds the libraries of our step",
    "loss": "inference, and the objective from these logits",
    "mezo": "two steps of this package",
    "rows": "two steps with a direction for every row, of rank-one signs",
    "reference": "two steps of the published in-place walk",
    "adamw": "two steps of AdamW with backpropagation",
}
PASSAGES = ("icl", "boolq", "multirc", "record", "copa")
BATCHES = ("synthetic", "sst2", *PASSAGES)


@dataclass(frozen=True)
class Options:
    model: str = "smollm2-135m"
    dtypes: Sequence[str] = ("float32",)
    tunings: Sequence[str] = ("full",)
    batches: Sequence[str] = ("synthetic",)
    data: str | None = None
    batch_size: int | None = None
    repeats: int = 3
    threads: int | None = None
    seed: int = 0
    cases: Sequence[str] = ()  # (): all, but no AdamW for workloads with long shared prefixes


@dataclass(frozen=True, slots=True)
class Case:
    """What one process measures."""

    case: str
    model: str
    dtype: str
    tuning: str
    batch: str
    data: str | None
    batch_size: int | None
    threads: int | None
    seed: int


def command(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(DTYPE_NAMES)}. Default: float32.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(TUNINGS)}. Default: full.")] = None,
    batch: Annotated[
        Many, typer.Option(help="synthetic (default), sst2, or a workload of python -m benchmarks prefix.")
    ] = None,
    case: Annotated[Many, typer.Option(help="What to measure; all by default.")] = None,
    data: Data = None,
    batch_size: OwnSize = None,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each case.")] = 3,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Peak memory of a step over plain inference, each case in a process of its own."""
    options = Options(
        model,
        known(dtype or ["float32"], DTYPE_NAMES, "dtype"),
        known(tuning or ["full"], TUNINGS, "tuning mode"),
        known(batch or ["synthetic"], BATCHES, "batch"),
        data,
        batch_size,
        repeats,
        threads,
        seed,
        known(case or (), CASES, "case"),
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Measure the peak of every case in `repeats` processes each, and its ratio to inference.

    Raises MezoError for a setting that is not available, or where the system does not count peaks.
    """
    rows = [
        measure(dtype, tuning, batch, options, note)
        for batch in options.batches
        for dtype in options.dtypes
        for tuning in options.tunings
    ]
    import torch

    columns = (*_COLUMNS, *(_column(case) for case in CASES if any(case in row["peak_mb"] for row in rows)))
    columns += (Column("mezo / loaded", of_ratio("mezo_over_loaded")),)
    count = options.threads or torch.get_num_threads()
    return Report("memory", vars(options), rows, columns, count)


def measure(dtype: str, tuning: str, batch: str, options: Options, note: Note) -> Row:
    cases = tuple(options.cases) or tuple(c for c in CASES if c != "adamw" or batch not in PASSAGES)
    peaks: dict[str, list[float]] = {case: [] for case in cases}
    made_of = ""
    for number in range(options.repeats):
        note(f"{dtype}, {tuning}, {batch}: process of each case, {number + 1} of {options.repeats}")
        for case in cases[:: -1 if number % 2 else 1]:
            found = peak_in_a_process(
                Case(
                    case,
                    options.model,
                    dtype,
                    tuning,
                    batch,
                    options.data,
                    options.batch_size,
                    options.threads,
                    options.seed,
                )
            )
            peaks[case].append(found["peak"] / 1e6)
            made_of = found["batch"]
    return {
        "model": options.model,
        "dtype": dtype,
        "tuning": tuning,
        "batch": made_of,
        "peak_mb": {case: Spread.of(values).as_dict() for case, values in peaks.items()},
        "ratios": over_inference(peaks),
    }


def over_inference(peaks: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Every peak over the median peak of inference, because processes do not run in pairs as rounds do.

    Also our step over inference with the same libraries loaded. The libraries have the same size for
    every model, so large models approach this ratio.
    """
    pairs = [(case, BASE) for case in peaks] + [("mezo", "loaded")]
    return {
        f"{case}_over_{base}": Spread.of([p / statistics.median(peaks[base]) for p in peaks[case]]).as_dict()
        for case, base in pairs
        if case in peaks and base in peaks
    }


def peak_in_a_process(case: Case) -> dict[str, Any]:
    """The peak in bytes and a description of the batch. `case` may also be a way of `benchmarks.modes`."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peak", json.dumps(asdict(case))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process of case {case.case!r} failed:\n{done.stderr.strip()}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise MezoError(found["error"])
    return found


def _column(case: str) -> Column:
    if case == BASE:
        return Column("inference, MB", lambda row: f"{row['peak_mb'][BASE]['median']:.0f}")
    return Column(f"{case} / {BASE}", of_ratio(f"{case}_over_{BASE}"))


_COLUMNS = (
    Column("model", lambda row: row["model"]),
    Column("dtype", lambda row: row["dtype"]),
    Column("tuning", lambda row: row["tuning"]),
    Column("batch", lambda row: row["batch"]),
)
