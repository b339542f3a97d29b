"""`python -m benchmarks noise`: speed of the noise kernels, against a bare pass over the same memory.

`bare` multiplies the weights by one in place: the cost of reading and writing them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from benchmarks.options import DTYPE_NAMES, Json, Many, Markdown, Rounds, known, progress, show
from benchmarks.report import Column, Report, Row, of_ratio, spread
from benchmarks.timing import Note, Seconds, interleaved, ratio, spreads, threads
from mezo import noise
from mezo.errors import MezoError
from mezo.models.dtypes import DTYPES
from mezo.noise.where import Where
from mezo.util.registry import look_up
from mezo.weights.weights import Weights

KINDS: dict[str, noise.Kind] = {"gaussian": "gaussian", "rademacher": "rademacher"}
WHERE = Where(noise.tensor_id("benchmark"))
CASES = {
    "bare": "in-place multiplication by one",
    "perturb": "the paper's walk, onto the weight itself",
    "pair": "theta + eps z and theta - eps z, written to other memory",
    "update": "one direction's step, 16-bit weights rounded stochastically",
    "update-matched": "the same with matched rounding (of 16-bit weights; Rademacher noise has none)",
    "update-nearest": "the same to nearest",
    "update-2": "two directions' step",
    "torch": "torch.normal and an addition",
}
ADAPTER = "adapter"


@dataclass(frozen=True)
class Options:
    elements: int = 1 << 24
    dtypes: Sequence[str] = ("float32", "bfloat16")
    kinds: Sequence[str] = tuple(KINDS)
    threads: Sequence[int] = ()  # () : as many as torch has
    rounds: int = 7
    device: str = "cpu"

    def settle(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def command(
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(DTYPE_NAMES)}.")] = None,
    kind: Annotated[Many, typer.Option(help="Of: gaussian, rademacher.")] = None,
    elements: Annotated[int, typer.Option(min=1, help="Weights that are passed over.")] = 1 << 24,
    rounds: Rounds = 7,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads of torch.")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """G elements/s a thread of the noise kernels, against a bare pass over the same memory."""
    options = Options(
        elements,
        known(dtype or ("float32", "bfloat16"), DTYPE_NAMES, "dtype"),
        known(kind or KINDS, KINDS, "noise"),
        threads or (),
        rounds,
    )
    show(run(options, progress), as_json, markdown)


def run(options: Options, note: Note = lambda text: None) -> Report:
    """Measure every dtype, kind and number of threads. Raises MezoError for unknown ones."""
    if options.elements < 1:
        raise MezoError(f"expected a number of elements of 1 or more, found {options.elements}")
    rows, most = [], 0
    for wanted in options.threads or [None]:
        with threads(wanted) as count:
            most = max(most, count)
            for name in options.dtypes:
                dtype = look_up(DTYPES, name, "dtype")
                for kind in options.kinds:
                    look_up(KINDS, kind, "noise")
                    note(f"{count} threads, {name}, {kind}")
                    rows.append(measure(dtype, KINDS[kind], count, options))
            rows.append(adapter(count, options))
    return Report("noise", vars(options), rows, _COLUMNS, most)


def measure(dtype: torch.dtype, kind: noise.Kind, count: int, options: Options) -> Row:
    """One dtype and kind, over `options.elements` weights."""
    w = torch.randn(1, options.elements, device=options.device).to(dtype)
    plus, minus = torch.empty_like(w), torch.empty_like(w)

    def by_torch(number: int) -> None:
        w.add_(torch.normal(0.0, 1.0, size=w.shape, dtype=dtype, device=w.device), alpha=1e-6)

    cases: dict[str, Callable[[int], object]] = {
        "bare": lambda _: w.mul_(1.0),
        "perturb": lambda n: noise.perturb(w, WHERE, n, 1e-6, w, kind=kind),
        "pair": lambda n: noise.perturb_pair(w, WHERE, n, 1e-6, plus, minus, kind=kind),
        "update": lambda n: noise.update_(w, WHERE, [n], [1e-6], kind=kind),
        "update-2": lambda n: noise.update_(w, WHERE, [n, n + 1], [1e-6, 1e-6], kind=kind),
        "torch": by_torch,
    }
    if dtype != torch.float32:  # not rounded
        cases["update-nearest"] = lambda n: noise.update_(
            w, WHERE, [n], [1e-6], rounding="nearest", kind=kind
        )
        if kind == "gaussian":
            cases["update-matched"] = lambda n: noise.update_(w, WHERE, [n], [1e-6], rounding="matched")
    seconds = interleaved(cases, options.rounds, options.settle)
    return {
        "what": str(dtype).removeprefix("torch."),
        "kind": kind,
        "elements": options.elements,
        "threads": count,
        "seconds": spreads(seconds),
        "rates": rates(seconds, options.elements, count),
        "ratios": _over_bare(seconds),
    }


def adapter(count: int, options: Options) -> Row:
    """The update of an adapter: 120 small tensors, SmolLM2-135M's query and value projections at rank 8.

    Times 20 updates at once, because one is too short to time.
    """
    repeats = 20
    shapes = [(8, 576), (576, 8), (8, 576), (192, 8)] * 30
    tensors = [torch.zeros(shape, device=options.device) for shape in shapes]
    weights = Weights((f"lora.{i}", tensor) for i, tensor in enumerate(tensors))
    draws = [t.numel() for t in tensors]

    def bare(number: int) -> None:
        for _ in range(repeats):
            for tensor in tensors:
                tensor.mul_(1.0)

    def update(number: int) -> None:
        for _ in range(repeats):
            weights.update_([number], [1e-6])

    def by_torch(number: int) -> None:
        for _ in range(repeats):
            for tensor in tensors:
                tensor.add_(torch.normal(0.0, 1.0, size=tensor.shape, device=tensor.device), alpha=1e-6)

    seconds = interleaved({"bare": bare, "update": update, "torch": by_torch}, options.rounds, options.settle)
    seconds = {name: [value / repeats for value in values] for name, values in seconds.items()}
    return {
        "what": f"{ADAPTER}, {len(tensors)} tensors",
        "kind": "gaussian",
        "elements": sum(draws),
        "threads": count,
        "seconds": spreads(seconds),
        "rates": rates(seconds, sum(draws), count),
        "ratios": _over_bare(seconds),
    }


def rates(seconds: Seconds, elements: int, count: int) -> dict[str, dict[str, float]]:
    """G elements/s of each thread."""
    return spreads({name: [elements / s / count / 1e9 for s in values] for name, values in seconds.items()})


def _over_bare(seconds: Seconds) -> dict[str, dict[str, float]]:
    return {f"{name}_over_bare": ratio(seconds, name, "bare").as_dict() for name in seconds if name != "bare"}


def _rate(case: str) -> Callable[[Row], str]:
    return lambda row: spread(row["rates"].get(case))


_COLUMNS = (
    Column("threads", lambda row: str(row["threads"])),
    Column("weights", lambda row: row["what"]),
    Column("noise", lambda row: row["kind"]),
    Column("bare", _rate("bare")),
    Column("in place", _rate("perturb")),
    Column("pair", _rate("pair")),
    Column("update", _rate("update")),
    Column("matched", _rate("update-matched")),
    Column("nearest", _rate("update-nearest")),
    Column("two directions", _rate("update-2")),
    Column("torch", _rate("torch")),
    Column("in place / bare", of_ratio("perturb_over_bare")),
    Column("pair / bare", of_ratio("pair_over_bare")),
    Column("update / bare", of_ratio("update_over_bare")),
    Column("update, ms", lambda row: f"{1e3 * row['seconds']['update']['median']:.2f}"),
)
