"""`python -m benchmarks quantised`: peak memory and seconds of a LoRA step on a base in few bits.

Every case lives in a process of its own, so that its peak is its own; the processes take turns, one step each a round, so
that other load slows all of them.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from benchmarks.options import Json, Many, Markdown, Model, Rounds, Seed, Size, Threads, known, progress, show
from benchmarks.processes import environment
from benchmarks.report import Column, Report, of_ratio
from benchmarks.timing import Note, Seconds, Spread, ratio, spreads
from mezo.errors import MezoError

BASE = "bfloat16"
CASES = {
    BASE: "a step of this package on the base in bfloat16",
    "nf4": "the same on a base that bitsandbytes holds in 4 bits",
    "int8": "the same on a base that torchao holds in 8 bits",
    "qlora": "a step of AdamW by backpropagation, through peft's LoRA on the base in 4 bits",
    "qlora-checkpointing": "the same, with activations computed again in the backward pass",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What one process measures."""

    case: str
    model: str
    batch_size: int
    length: int
    threads: int | None
    seed: int


def command(
    model: Model = "smollm2-135m",
    case: Annotated[Many, typer.Option(help=f"Of: {', '.join(CASES)}. Default: all.")] = None,
    batch_size: Size = 4,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a row.")] = 128,
    rounds: Rounds = 5,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Peak memory and time of a LoRA step on a base in 4 or 8 bits, beside bfloat16 and beside QLoRA."""
    names = known(case or CASES, CASES, "case")
    cases = [Case(name, model, batch_size, length, threads, seed) for name in names]
    show(run(cases, rounds, progress), as_json, markdown)


def run(cases: Sequence[Case], rounds: int, note: Note = lambda text: None) -> Report:
    """Measure all cases in turn. Raises MezoError for a case whose packages are not there."""
    seconds: Seconds = {c.case: [] for c in cases}
    peaks: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        children = {}
        for case in cases:
            note(f"{case.case}: loading {case.model}")
            children[case.case] = stack.enter_context(Child.of(case))
        for number in range(rounds + 1):
            note(f"round {number} of {rounds}" + (", which does not count" if not number else ""))
            for name in list(children)[:: -1 if number % 2 else 1]:
                took = children[name].ask("step")["seconds"]
                if number:
                    seconds[name].append(took)
        for name, child in children.items():
            peaks[name] = child.ask("peak")["peak"] / 1e6
    has_base = BASE in peaks
    rows = [
        {
            "case": name,
            "what": CASES[name],
            "model": cases[0].model,
            "batch": f"{cases[0].batch_size} x {cases[0].length} synthetic",
            "peak_mb": float(f"{peaks[name]:.4g}"),
            "seconds": spreads(seconds)[name],
            "ratios": {
                "time_over_bfloat16": ratio(seconds, name, BASE).as_dict(),
                "peak_over_bfloat16": Spread.of([peaks[name] / peaks[BASE]]).as_dict(),
            }
            if has_base
            else {},
        }
        for name in peaks
    ]
    import torch

    return Report(
        "quantised",
        {**asdict(cases[0]), "case": [c.case for c in cases], "rounds": rounds},
        rows,
        _COLUMNS,
        cases[0].threads or torch.get_num_threads(),
    )


class Child:
    """A process that takes a step when it is asked to."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self.process = process

    @classmethod
    @contextlib.contextmanager
    def of(cls, case: Case) -> "Iterator[Child]":
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.quantised_child",
            json.dumps(asdict(case)),
        ]
        with subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            child = cls(process)
            try:
                child.answer()
                yield child
            finally:
                process.kill()

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Raises MezoError for what the process could not do."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MezoError("the process of a case ended; out of memory?")
        found = json.loads(line)
        if "error" in found:
            raise MezoError(found["error"])
        return found


_COLUMNS = (
    Column("case", lambda row: row["case"]),
    Column("model", lambda row: row["model"]),
    Column("batch", lambda row: row["batch"]),
    Column("peak, MB", lambda row: f"{row['peak_mb']:.0f}"),
    Column("peak / bfloat16", of_ratio("peak_over_bfloat16")),
    Column("s a step", lambda row: f"{row['seconds']['median']:.3g}"),
    Column("time / bfloat16", of_ratio("time_over_bfloat16")),
)
