"""What a GPU makes of this package, in minutes: kernels bit for bit, noise, steps, memory, a run and its replay.

    make gpu-check
    python -m benchmarks gpu --minutes 8 --json gpu.json

From the source tree, without installing it and without network. Each part is a process of its own with a share of
the minutes; what it finds is in the JSON file as soon as it is known, and a part that fails gives its reason and
makes room for the next. The exit status is 0 if every part came to its end, whatever the figures are.
`--dry` runs every part on the CPU with tiny shapes: it shows that the command works, and nothing else.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_figures import Figure, table
from benchmarks.processes import environment
from mezo.util.atomic_files import replacing

NEEDED = (
    "numpy",
    "torch",
    "triton",
    "transformers",
    "peft",
    "safetensors",
    "numba",
    "pydantic",
    "typer",
    "yaml",
)
NEEDED += ("matplotlib", "httpx", "rich")


class Share(NamedTuple):
    """How much of the minutes a part may take, of what is left and beside those after it."""

    weight: float
    what: str


PARTS: dict[str, Share] = {
    "kernels": Share(30, "every kernel against the CPU's bits, two runs, and the tests marked gpu"),
    "noise": Share(10, "noise and updates against a bare pass over the weights"),
    "steps": Share(32, "steps and peak memory against inference, the published step and AdamW"),
    "profile": Share(8, "where a step's time goes, launches, and sizes of scratch blocks"),
    "demo": Share(14, "200 steps of the demo, and their replay on the CPU"),
    "engines": Share(6, "a LoRA step on SGLang and vLLM, where they are installed"),
}


def main() -> int:
    """Run the parts; 0 if all came to their end, 1 if one did not, 2 if something is missing."""
    given = _options().parse_args()
    if missing := _missing(given.dry):
        print(f"python -m benchmarks gpu: {missing}", file=sys.stderr)
        return 2
    began = time.monotonic()
    results: dict[str, Any] = {
        "command": "python -m benchmarks gpu",
        "minutes": given.minutes,
        "dry": given.dry,
        "machine": {},
        "parts": {},
    }
    settings = {"dry": given.dry, "model": given.model}
    asked = given.part or list(PARTS)

    def keep() -> None:
        if given.json:
            with replacing(Path(given.json).absolute()) as temporary:
                temporary.write_text(json.dumps(results, indent=1) + "\n")

    machine = _machine(given.dry)
    if isinstance(machine, str):
        print(f"python -m benchmarks gpu: {machine}", file=sys.stderr)
        return 2
    results["machine"] = machine
    keep()
    left = [name for name in PARTS if name in asked]
    while left:
        name = left[0]
        share = PARTS[name].weight / sum(PARTS[n].weight for n in left)
        seconds = share * max(0.0, 60 * given.minutes - (time.monotonic() - began))
        print(f"mezo: {name}: {PARTS[name].what}; {seconds:.0f} s at most", file=sys.stderr, flush=True)
        part: dict[str, Any] = {"status": "running", "reason": "", "seconds": 0.0, "figures": []}
        results["parts"][name] = part

        def heard(figure: Figure, part: dict[str, Any] = part) -> None:
            part["figures"].append(asdict(figure))
            keep()

        started = time.monotonic()
        part["status"], part["reason"] = _run(name, settings, seconds, heard)
        part["seconds"] = round(time.monotonic() - started, 1)
        keep()
        left.pop(0)
    print(table(results["parts"]))
    if given.dry:
        print("A dry run on the CPU with tiny shapes: no figure above says anything of a GPU.")
    print(" ".join(f"{key}: {value};" for key, value in machine.items()).rstrip(";"))
    return 0 if all(part["status"] in ("done", "left out") for part in results["parts"].values()) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything; default: 8")
    parser.add_argument("--json", metavar="OUT", help="file for what is found, as it is found")
    parser.add_argument(
        "--model", help="folder of the model of the demo; default: smollm2-135m, if it is here"
    )
    parser.add_argument("--part", action="append", choices=list(PARTS), help="this part alone; repeatable")
    parser.add_argument("--dry", action="store_true", help="every part on the CPU with tiny shapes")
    return parser


def _missing(dry: bool) -> str:
    """What the command cannot do without, in one line; empty: nothing."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if dry and "triton" in absent:
        absent.remove("triton")
    if not absent:
        return ""
    return f"missing: {', '.join(absent)} (Python {sys.executable}); install them, or put a folder that has them on PYTHONPATH"


def _machine(dry: bool) -> dict[str, Any] | str:
    """The card, the driver and the versions; or one line that says what is missing."""
    command = _child("machine", {"dry": dry})
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    found = done.stdout.strip().splitlines()
    if done.returncode or not found:
        return _last(done.stderr) or "the first process ended without a word"
    answer = json.loads(found[-1])
    return answer.get("missing", answer)


def _child(name: str, settings: Mapping[str, Any]) -> list[str]:
    """The command of a part's process."""
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_child", name, json.dumps(settings)]


def _run(
    name: str, settings: Mapping[str, Any], seconds: float, heard: Callable[[Figure], None]
) -> tuple[str, str]:
    """(status, reason) of one part, which is stopped after so many seconds."""
    until = time.monotonic() + seconds
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            _child(name, {**settings, "seconds": seconds}),
            env=environment(PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # so that what the part starts ends with it
        ) as child,
    ):
        try:
            left_out = _listen(child, until, heard)
            status = child.wait(max(0.1, until - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            return "out of time", f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        errors.seek(0)
        if status:
            return "failed", _last(errors.read()) or f"ended with status {status}"
    return ("left out", left_out) if left_out else ("done", "")


def _listen(child: "subprocess.Popen[str]", until: float, heard: Callable[[Figure], None]) -> str:
    """Pass figures on until the child closes its output; why it was left out, if it says so. Raises TimeoutError."""
    assert child.stdout is not None
    left_out, text = "", ""
    os.set_blocking(child.stdout.fileno(), False)
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not ready.select(max(0.0, until - time.monotonic())):
                raise TimeoutError
            chunk = os.read(child.stdout.fileno(), 1 << 16).decode(errors="replace")
            if not chunk:
                return left_out
            *lines, text = (text + chunk).split("\n")
            for line in lines:
                if (figure := Figure.heard(line)) is not None:
                    heard(figure)
                elif line.startswith("left out: "):
                    left_out = line.removeprefix("left out: ")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
