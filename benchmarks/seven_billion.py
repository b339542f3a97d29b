"""`python -m benchmarks seven-billion`: a random Llama of some billions of weights in bfloat16, tuned on this machine.

Cases run one after another, each in a process of its own that makes the model anew: two of them do not fit side by side.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from benchmarks.options import Json, Many, Markdown, Seed, Size, Threads, known, progress, show
from benchmarks.processes import environment
from benchmarks.report import Column, Report
from benchmarks.timing import Note, Spread
from mezo.errors import MezoError

BASE = "inference"
CASES = {
    BASE: "two forward passes",
    "lora": "steps of LoRA",
    "full": "steps of all weights",
}
LAYERS = 32  # of the largest: 6.74 billion weights, the shape of Llama-2-7B


@dataclass(frozen=True, slots=True)
class Case:
    """What one process measures."""

    case: str
    layers: int
    batch_size: int
    length: int
    steps: int
    threads: int | None
    seed: int


def command(
    layers: Annotated[
        int, typer.Option(min=1, max=80, help="Of 0.2 billion weights each, beside 0.26.")
    ] = LAYERS,
    case: Annotated[Many, typer.Option(help=f"Of: {', '.join(CASES)}. Default: all.")] = None,
    batch_size: Size = 1,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a row.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps that count, after one that does not.")] = 3,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Peak memory over inference and seconds a step of a model that fills the memory."""
    names = known(case or CASES, CASES, "case")
    show(
        run([Case(name, layers, batch_size, length, steps, threads, seed) for name in names], progress),
        as_json,
        markdown,
    )


def run(cases: Sequence[Case], note: Note = lambda text: None) -> Report:
    """Measure the cases one after another. Raises MezoError if a process ends, as for lack of memory."""
    found = {}
    for case in cases:
        note(f"{case.case}: a model of {case.layers} layers, {case.steps} steps")
        found[case.case] = _measured(case)
    rows = [
        {
            "case": name,
            "what": CASES[name],
            "weights": values["weights"],
            "batch": f"{cases[0].batch_size} x {cases[0].length} synthetic",
            "weights_gb": round(values["bytes"] / 1e9, 3),
            "peak_gb": round(values["peak"] / 1e9, 3),
            "seconds": Spread.of(values["seconds"]).as_dict(),
            "ratios": {
                "peak_over_inference": round(values["peak"] / found[BASE]["peak"], 4),
                "time_over_inference": round(
                    Spread.of(values["seconds"]).median / Spread.of(found[BASE]["seconds"]).median, 3
                ),
            }
            if BASE in found
            else {},
        }
        for name, values in found.items()
    ]
    import torch

    options = {**asdict(cases[0]), "case": list(found)}
    return Report("seven-billion", options, rows, _COLUMNS, cases[0].threads or torch.get_num_threads())


def _measured(case: Case) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.large_child", json.dumps(asdict(case))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["out of memory?"])[-1]
        raise MezoError(f"the process of case {case.case!r} ended with status {done.returncode}: {said}")
    return json.loads(done.stdout.splitlines()[-1])


def _ratio(name: str) -> Any:
    return lambda row: str(row["ratios"].get(name, ""))


_COLUMNS = (
    Column("case", lambda row: row["case"]),
    Column("weights", lambda row: f"{row['weights'] / 1e9:.2f} billion"),
    Column("batch", lambda row: row["batch"]),
    Column("weights, GB", lambda row: f"{row['weights_gb']:.2f}"),
    Column("peak, GB", lambda row: f"{row['peak_gb']:.2f}"),
    Column("peak / inference", _ratio("peak_over_inference")),
    Column("s a step", lambda row: f"{row['seconds']['median']:.3g}"),
    Column("time / inference", _ratio("time_over_inference")),
)
