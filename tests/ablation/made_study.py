"""A study's folder as `mezo ablate` leaves it, made of drawn numbers: for tests of the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mezo.events import EvalRecord, StepRecord
from mezo.runs.metrics_file import MetricsWriter

NASTY = "<script>alert(1)</script> | a \"b\" & 'c'\n## `x` ](y) $z$ </script>"
VERSIONS = {"mezo": "0.0", "torch": "2.0"}


def run_line(
    study: str | None, variant: str, seed: int, metrics: Mapping[str, float | None], **more: Any
) -> dict:
    """A line of kind "run" that has finished, unless `more` says otherwise."""
    return {
        "kind": "run",
        "study": study,
        "variant": variant,
        "settings": {},
        "seed": seed,
        "status": "ok",
        "error": None,
        "run": None,
        "steps": 40,
        "metrics": dict(metrics),
        "config": {"model": "toy", "task": "sst2", "num_steps": 40, "seed": seed},
        "versions": VERSIONS,
        "key": f"{variant}-{seed}",
        **more,
    }


def write_lines(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_run(folder: Path, accuracy: Sequence[float], *, seed: int, steps: int = 40) -> None:
    """metrics.jsonl of a run whose accuracy was measured len(accuracy) times, evenly spaced."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(seed)
    at = np.linspace(0, steps, len(accuracy)).round().astype(int).tolist()
    with MetricsWriter(folder / "metrics.jsonl") as writer:
        for step in range(steps + 1):
            if step in at:
                score = accuracy[at.index(step)]
                writer.write(EvalRecord(step, "validation", score, 1 - score, 200, 0.1, {"accuracy": score}))
            if step < steps:
                loss = 0.7 - 0.005 * step + 0.05 * float(drawn.standard_normal())
                writer.write(StepRecord(step, loss, 1e-3, (float(drawn.standard_normal()),), 0.1, 100))


def made(folder: Path, *, seeds: int = 3, name: str = "Perturbation scale", nasty: bool = False) -> Path:
    """Two studies: one variant clearly worse, one clearly better, one like the baseline, one that failed."""
    effects = {
        "baseline": (None, 0.0),
        "1e-1": (name, -0.10),
        "1e-4": (name, 0.001),
        "4 directions": ("Directions", 0.06),
    }
    lines: list[dict[str, Any]] = [
        {
            "kind": "meta",
            "title": "Two studies",
            "command": ["mezo", "ablate", "plan.yaml"],
            "budget": "40 steps a run",
        },
        {
            "kind": "study",
            "name": name,
            "ablated_part": "epsilon",
            "action": "REPLACE",
            "metrics": ["accuracy", "f1"],
        },
        {
            "kind": "study",
            "name": "Directions",
            "ablated_part": NASTY if nasty else "n",
            "action": "REPLACE",
            "metrics": [],
            "unbound": [{"text": "a better model", "reason": "no such setting", "nearest": ["model"]}],
        },
    ]
    drawn = np.random.default_rng(0)
    for seed in range(seeds):
        shared = 0.7 + 0.05 * float(drawn.standard_normal())
        for n, (variant, (study, effect)) in enumerate(effects.items()):
            # The noise of a pair is small beside the large effects and large beside the small one.
            accuracy = shared + effect + 0.002 * float(drawn.standard_normal())
            run = f"runs/{n}-{seed}"
            write_run(folder / run, [0.5, (0.5 + accuracy) / 2, accuracy], seed=10 * n + seed)
            metrics = {
                "accuracy": accuracy,
                "loss": 1 - accuracy,
                "peak_memory_gb": 0.5 + 0.1 * n + 0.001 * float(drawn.standard_normal()),
                "train_seconds": 10 + 5 * n + float(drawn.standard_normal()),
                "forward_passes": 80.0 * (1 + 3 * (n == 3)),
                "zero_gradient_fraction": 0.0,
            }
            label = NASTY if nasty and n == 3 else variant
            lines.append(
                run_line(study, label, seed, metrics, run=run, settings={"epsilon": 10.0**-n}, key=run)
            )
    lines.append(
        run_line(
            "Directions", "8 directions", 0, {}, status="failed", error="out of memory", run="runs/x", key="x"
        )
    )
    return write_lines(folder, lines)
