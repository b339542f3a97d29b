"""`python -m benchmarks scale`: a model of a step's time on many workers, and its error on this machine.

The figures for large models are computed, not measured: by the formulas in `benchmarks.cost`, with the rates of
a described accelerator. `--check` measures the rates of this machine on one process, and compares the times
that the formulas give for one and two processes with measured times.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.cost import SHAPES, Machine, Shape, Work, cost, efficiency
from benchmarks.options import Json, Many, Markdown, known, progress, show
from benchmarks.processes import environment
from benchmarks.report import Column, Report, Row
from benchmarks.timing import Note, Spread
from mezo.errors import MezoError

# An accelerator of 2023 at 40 % of its nominal 989 TFLOP/s and 80 % of its memory's 3.35 TB/s; sums inside a
# node of eight at 300 GB/s. The noise is bound by memory there: 6 bytes moved for a pair, 4 for an update.
ACCELERATOR = Machine(
    name="accelerator",
    flops=4e14,
    memory=2.7e12,
    pairs=2.7e12 / 6,
    update=2.7e12 / 4,
    update_more=2.7e12 / 2,
    inside=3e11,
    inside_latency=1e-5,
    between=0.0,  # the bandwidth option's
    between_latency=2e-5,
)


@dataclass(frozen=True)
class Options:
    models: Sequence[str] = ()  # (): all sizes
    tp: Sequence[int] = ()  # (): as few as hold the weights in three quarters of `memory`
    dp: Sequence[int] = (1, 8, 64, 512)
    gigabits: Sequence[float] = (100.0,)  # between copies, each
    memory: float = 80.0  # GB of a worker
    tokens: int = 16 * 64
    microbatches: int | None = None  # None: one for each copy
    directions: int = 1
    check: bool = False
    rounds: int = 5


def command(
    model: Annotated[Many, typer.Option(help="Sizes, as 13B; all by default.")] = None,
    tp: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Workers a copy is cut over; as few as hold it by default."),
    ] = None,
    dp: Annotated[list[int] | None, typer.Option(min=1, help="Copies; 1, 8, 64, 512 by default.")] = None,
    gigabits: Annotated[
        list[float] | None, typer.Option(min=0.001, help="Gbit/s between copies; 100 by default.")
    ] = None,
    memory: Annotated[float, typer.Option(min=1, help="GB of a worker.")] = 80.0,
    tokens: Annotated[int, typer.Option(min=1, help="Of a microbatch.")] = 1024,
    microbatches: Annotated[
        int | None, typer.Option(min=1, help="Of a step; one for each copy by default.")
    ] = None,
    directions: Annotated[int, typer.Option(min=1, help="Of a step.")] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Measure one and two processes here, and the model's error.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of --check, after one that does not count.")] = 5,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """What a step would take on 1 to thousands of workers, by a model; and how far that is off here."""
    options = Options(
        models=known(model or (), [shape.name for shape in SHAPES], "size"),
        tp=tp or (),
        dp=dp or (1, 8, 64, 512),
        gigabits=gigabits or (100.0,),
        memory=memory,
        tokens=tokens,
        microbatches=microbatches,
        directions=directions,
        check=check,
        rounds=rounds,
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note) -> Report:
    """Raises MezoError if a measuring process fails."""
    if options.check:
        note("measuring one process, two, and a model in two parts, one thread each")
        return _checked(_measured(options.rounds), options)
    rows = [
        _row(shape, tp, dp, gigabits, options)
        for shape in SHAPES
        if not options.models or shape.name in options.models
        for tp in options.tp or (_fewest(shape, options.memory),)
        for dp in options.dp
        for gigabits in options.gigabits
    ]
    notes = (
        "A model, not a measurement: formulas in benchmarks.cost, on a described accelerator "
        f"({ACCELERATOR.flops / 1e12:.0f} TFLOP/s of products, {ACCELERATOR.memory / 1e12:.1f} TB/s of memory).",
    )
    return Report("scale", asdict(options), rows, _COLUMNS, 1, notes)


def _fewest(shape: Shape, memory: float) -> int:
    """The smallest power of two of workers that hold the weights in bfloat16 in 3/4 of their memory."""
    tp = 1
    while 2 * shape.parameters / tp > 0.75e9 * memory:
        tp *= 2
    return tp


def _row(shape: Shape, tp: int, dp: int, gigabits: float, options: Options) -> Row:
    machine = Machine(**{**vars(ACCELERATOR), "between": gigabits * 1e9 / 8})
    work = Work(options.tokens, options.microbatches or dp, options.directions)
    step = cost(shape, machine, work, tp, dp)
    return {
        "model": shape.name,
        "tp": tp,
        "dp": dp,
        "workers": tp * dp,
        "gigabits": gigabits,
        "microbatches": work.microbatches,
        "seconds": step.seconds,
        "parts": {name: getattr(step, name) for name in ("forward", "noise", "update", "sums", "losses")},
        "tokens_per_second": work.microbatches * work.tokens / step.seconds,
        "efficiency": efficiency(shape, machine, work, tp, dp),
        "weight_gigabytes": step.weight_bytes / 1e9,
        "bytes_inside": step.bytes_inside,
        "bytes_between": step.bytes_between,
        "gradient_bytes": 2 * shape.parameters / tp if dp > 1 else 0,  # what backpropagation would send
    }


_COLUMNS = (
    Column("model", lambda r: r["model"]),
    Column("TP", lambda r: str(r["tp"])),
    Column("DP", lambda r: str(r["dp"])),
    Column("workers", lambda r: f"{r['workers']:,}"),
    Column("weights, GB", lambda r: f"{r['weight_gigabytes']:.1f}"),
    Column("step, ms", lambda r: f"{1000 * r['seconds']:.1f}"),
    Column(
        "of it sums, losses", lambda r: f"{1000 * r['parts']['sums']:.1f}, {1000 * r['parts']['losses']:.2f}"
    ),
    Column("tokens/s", lambda r: f"{r['tokens_per_second']:,.0f}"),
    Column("efficiency", lambda r: f"{r['efficiency']:.3f}"),
    Column("bytes to other copies", lambda r: f"{r['bytes_between']:.0f}"),
    Column(
        "gradients would be", lambda r: f"{r['gradient_bytes'] / 1e9:.1f} GB" if r["gradient_bytes"] else ""
    ),
)


# ---------------------------------------------------------------- the check


def _measured(rounds: int) -> dict[str, Any]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "benchmarks.scale_measure", "--rounds", str(rounds)],
        capture_output=True,
        text=True,
        env=environment(OMP_NUM_THREADS="1"),
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise MezoError(f"the measuring processes failed: {last[:300]}")
    return json.loads(lines[-1])


def machine_of(found: dict[str, Any], tokens: int) -> Machine:
    """The rates of this machine, from the times of single parts; no whole step is used."""
    seconds = {name: median(values) for name, values in found["seconds"].items()}
    shape = Shape(**found["shape"])
    activations = 2 * tokens * shape.hidden * 4
    a_gather = seconds["gather"] / found["gather"]
    return Machine(
        name="here",
        flops=2 * shape.parameters * tokens / seconds["bare"],
        memory=float("inf"),  # already in the time of a bare pass
        pairs=shape.parameters / seconds["pair"],
        update=shape.parameters / seconds["update"],
        update_more=shape.parameters / seconds["update"],
        inside=activations * found["sums"] / seconds["sums"],
        inside_latency=a_gather,
        between=float("inf"),
        between_latency=a_gather,
    )


def _checked(found: dict[str, Any], options: Options) -> Report:
    from benchmarks.scale_measure import LENGTH, ROWS

    shape, tokens = Shape(**found["shape"]), ROWS * LENGTH
    machine, work = machine_of(found, tokens), Work(tokens, microbatches=2, bytes_an_element=4)
    rows: list[Row] = []
    for case, tp, dp in (("one", 1, 1), ("data", 1, 2), ("tensor", 2, 1)):
        taken = found["seconds"][case]
        said = cost(shape, machine, work, tp, dp).seconds
        gain = [a / (2 * b) for a, b in zip(found["seconds"]["one"], taken, strict=True)]
        rows.append(
            {
                "case": case,
                "tp": tp,
                "dp": dp,
                "seconds": Spread.of(taken).as_dict(),
                "model_seconds": said,
                "model_over_measured": said / median(taken),
                "efficiency": None if case == "one" else Spread.of(gain).as_dict(),
                "bytes_between": found["bytes_a_step"] if case == "data" else 0,
            }
        )
    notes = (
        f"{shape.parameters / 1e6:.0f} M parameters, 2 microbatches of {ROWS} x {LENGTH} tokens, float32, a thread a "
        f"process. Efficiency: one process's time over twice that of two. Rates from pieces: "
        f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.pairs / 1e9:.2f} G pairs/s, {machine.inside / 1e9:.2f} GB/s.",
    )
    return Report("scale", asdict(options), rows, _CHECK_COLUMNS, 1, notes)


def _spread(values: dict[str, float] | None, digits: int) -> str:
    if values is None:
        return ""
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*(values[n] for n in ("median", "min", "max")), d=digits)


_NAMES = {"one": "one process", "data": "two, half of the data each", "tensor": "two, half of the model each"}
_CHECK_COLUMNS = (
    Column("", lambda r: _NAMES[r["case"]]),
    Column("step, s", lambda r: _spread(r["seconds"], 3)),
    Column("the model says", lambda r: f"{r['model_seconds']:.3f}"),
    Column("model / measured", lambda r: f"{r['model_over_measured']:.2f}"),
    Column("efficiency", lambda r: _spread(r["efficiency"], 2)),
    Column("bytes a step", lambda r: f"{r['bytes_between']:.0f}" if r["bytes_between"] else ""),
)
