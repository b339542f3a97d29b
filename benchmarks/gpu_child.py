"""A process of `python -m benchmarks gpu`: one part, whose figures it prints as it finds them."""

import importlib.util
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, run
from typing import Any

import torch

from benchmarks import noise as rates
from benchmarks.gpu_figures import Figure
from benchmarks.processes import ROOT, environment
from benchmarks.timing import interleaved, ratio
from mezo import noise
from mezo.weights.weights import Weights

BANDWIDTH, BYTES = 0.6, {"perturb": 2, "pair": 3, "update": 2, "update-matched": 2, "update-2": 2}


@dataclass(frozen=True)
class Settings:
    """dry: on the CPU, tiny. model: of the demo. seconds: after which this process is stopped."""

    dry: bool = False
    model: str | None = None
    seconds: float = 0.0

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    def settle(self) -> None:
        """Wait for what was launched."""
        if not self.dry:
            torch.cuda.synchronize()


def machine(settings: Settings) -> dict[str, Any]:
    """Card, driver and versions; or what is missing."""
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if settings.dry:
        return {"card": "none: a dry run on the CPU", **versions}
    if not torch.cuda.is_available():
        return {
            "missing": f"needs a CUDA GPU, and torch {torch.__version__} sees none (--dry runs on the CPU)"
        }
    import transformers
    import triton

    card = torch.cuda.get_device_properties(0)
    driver = "unknown"
    if importlib.util.find_spec("pynvml") is not None:
        import pynvml  # type: ignore[import-not-found]

        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    return {
        "card": card.name,
        "capability": f"sm_{card.major}{card.minor}",
        "memory, GiB": round(card.total_memory / 2**30),
        "L2, MB": round(getattr(card, "L2_cache_size", 0) / 1e6, 1),
        "driver": driver,
        "CUDA": torch.version.cuda,
        "triton": triton.__version__,
        "transformers": transformers.__version__,
        **versions,
    }


# ---------------------------------------------------------------- kernels


def kernels(settings: Settings) -> None:
    """Bits against the CPU's kernels, which the tests hold against the specification; then those tests, on the GPU."""
    shapes = (
        [(64, 48), (7, 4099), (1, 5000)] if settings.dry else [(4096, 1024), (7, 400_003), (1, 5_000_001)]
    )
    for kind in ("gaussian", "rademacher", "low-rank", "rank-one"):
        Figure(
            f"{kind} noise", "bits equal to the CPU's", float(_same_bits(kind, shapes, settings)), at_least=1
        ).say()
    _tests(settings)


def _same_bits(kind: Any, shapes: list[tuple[int, int]], settings: Settings) -> bool:
    """Perturbed and updated weights of three types, here and there, and a second time there."""
    equal = True
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for rounding in ("matched", "stochastic", "nearest"):
            sums = set()
            for device in ("cpu", settings.device, settings.device):
                drawn = torch.Generator().manual_seed(0)
                named = [
                    (f"layer{i}.weight", torch.randn(s, generator=drawn).to(dtype).to(device))
                    for i, s in enumerate(shapes)
                ]
                weights = Weights([*named, ("bias", torch.zeros(33, dtype=dtype, device=device))], kind=kind)
                weights.update_([5, 2**64 - 1], [0.5, -0.25], factor=-1e-2, decay=0.9, rounding=rounding)  # type: ignore[arg-type]
                sums.add(weights.checksum())
            equal = equal and len(sums) == 1
    return equal


def _tests(settings: Settings) -> None:
    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("hypothesis") is None:
        Figure(
            "tests marked gpu", "passed", None, at_least=1, why="needs pytest and hypothesis on PYTHONPATH"
        ).say()
        return
    marked = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in p.read_text()]
    chosen = ["-m", "gpu", "--continue-on-collection-errors", *map(str, marked)]
    if settings.dry:  # those are skipped here: the same tests on the CPU, a few
        chosen = ["tests/noise/test_kernels.py", "-k", "(test_fill or test_rows) and cpu and not far"]
    if importlib.util.find_spec("xdist") is not None and not settings.dry:
        chosen += [
            "--numprocesses",
            str(min(8, os.cpu_count() or 1)),
            "--dist",
            "worksteal",
        ]  # compiling is what takes long
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", *chosen]
        done = run(command, cwd=ROOT, env=environment(), stdout=PIPE, stderr=STDOUT, text=True, check=False)
        if not report.exists():
            sys.exit(f"pytest ended with status {done.returncode}: {done.stdout.strip()[-200:]}")
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    print(done.stdout, file=sys.stderr)
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    Figure("tests marked gpu", "passed", passed, at_least=1).say()
    Figure("tests marked gpu", "failed", failed, at_most=0).say()
    Figure("tests marked gpu", "skipped", counts["skipped"]).say()
    for case in suite.iter("testcase"):
        for bad in (*case.iter("failure"), *case.iter("error")):
            said = (bad.get("message") or "failed").splitlines()[0][:160]
            Figure(f"{case.get('classname')}::{case.get('name')}", "failure", None, why=said).say()


# ---------------------------------------------------------------- noise


def speed(settings: Settings) -> None:
    """G elements/s, and the share of the memory bandwidth that a bare pass reaches here."""
    elements, rounds = (1 << 12, 1) if settings.dry else (1 << 28, 5)
    options = rates.Options(elements, ("bfloat16", "float32"), rounds=rounds, device=settings.device)
    for dtype in (torch.bfloat16, torch.float32):
        for kind in ("gaussian", "rademacher"):
            row = rates.measure(dtype, rates.KINDS[kind], 1, options)
            what = f"{row['what']}, {kind}"
            bare = row["seconds"]["bare"]["median"]
            size = elements * dtype.itemsize
            Figure(what, "bare pass, GB/s", 2 * size / bare / 1e9).say()
            for case, passes in BYTES.items():
                if case in row["rates"]:
                    Figure.spread(what, f"{case}, G elements/s", row["rates"][case]).say()
                    share = passes / 2 * bare / row["seconds"][case]["median"]
                    Figure(
                        what,
                        f"{case}, share of bandwidth",
                        share,
                        at_least=None if settings.dry else BANDWIDTH,
                    ).say()
    row = rates.adapter(1, options)
    Figure.spread(row["what"], "update over bare", row["ratios"]["update_over_bare"]).say()
    Figure(row["what"], "update, ms", 1e3 * row["seconds"]["update"]["median"]).say()
    _exact_product(settings, rounds)


def _exact_product(settings: Settings, rounds: int) -> None:
    """The update of sixteen directions of rank-one signs."""
    side = 64 if settings.dry else 8192
    w = torch.randn(side, side, device=settings.device).to(torch.bfloat16)
    weights = Weights([("layer.weight", w)], kind="rank-one")
    seconds = interleaved(
        {
            "update": lambda n: weights.update_(range(16 * n, 16 * n + 16), [0.1 * k for k in range(1, 17)], factor=-1e-3),
            "bare": lambda _: w.mul_(1.0),
        },
        rounds,
        settings.settle,
    )  # fmt: skip
    over = ratio(seconds, "update", "bare").as_dict()
    Figure.spread(f"rank-one signs, 16 directions, {side} x {side} bfloat16", "update over bare", over).say()


def steps(settings: Settings) -> None:
    from benchmarks.gpu_steps import measure

    measure(settings)


def profile(settings: Settings) -> None:
    from benchmarks.gpu_profile import measure

    measure(settings)


def demo(settings: Settings) -> None:
    from benchmarks.gpu_runs import replayed

    replayed(settings)


def engines(settings: Settings) -> None:
    from benchmarks.gpu_runs import served

    served(settings)


RUN: dict[str, Callable[[Settings], None]] = {
    "kernels": kernels,
    "noise": speed,
    "steps": steps,
    "profile": profile,
    "demo": demo,
    "engines": engines,
}


def main(arguments: list[str]) -> None:
    name, given = arguments
    settings = Settings(**json.loads(given))
    noise.announce = lambda text: None
    if name == "machine":
        print(json.dumps(machine(settings)))
        return
    began = time.monotonic()
    RUN[name](settings)
    print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
