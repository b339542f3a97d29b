"""Peak memory of a full-parameter step over plain inference of the same batch.

Each case runs in a process of its own; the peak is counted from after the model is loaded, so it
holds the weights but not what loading them took.
"""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES = ("inference", "mezo", "reference", "adamw")


def run(
    *, model: str = "smollm2-135m", dtype: str = "float32", repeats: int = 3, cases: tuple[str, ...] = CASES
) -> dict[str, Any]:
    """Peaks in MB of every case (median of `repeats` processes, interleaved) and their ratios to inference.

    Batch: 16 rows of 64 tokens, every position scored. inference: two forward passes with full
    logits. mezo: our step. reference: the published in-place walk. adamw: one backpropagation step.
    """
    peaks: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            command = [sys.executable, "-W", "ignore", "-m", "mezo.bench.memory", case, model, dtype]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[case].append(json.loads(done.stdout.splitlines()[-1]) / 2**20)
    base = statistics.median(peaks["inference"])
    return {
        "model": model,
        "dtype": dtype,
        "batch": "16 x 64, every position scored",
        **{f"{case}_peak_mb": round(statistics.median(p), 1) for case, p in peaks.items()},
        **{f"{case}_over_inference": round(statistics.median(p) / base, 3) for case, p in peaks.items()},
        **{
            f"{case}_over_inference_min_max": [round(f(p) / base, 3) for f in (min, max)]
            for case, p in peaks.items()
        },
    }


def _case(case: str, model: str, dtype: str) -> int:
    import torch

    from mezo.algorithm import mezo_step
    from mezo.bench.reference import reference_step
    from mezo.bench.workload import engine_for, full_batch, model_for, padded
    from mezo.estimators import TwoPoint

    loaded = model_for(model, dtype)
    batch = full_batch(loaded.model.config.vocab_size)
    ids, mask = padded(batch, 1)

    def loss() -> torch.Tensor:
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())

    engine = engine_for(loaded) if case == "mezo" else None
    _forget_peak()
    for step in range(2):
        if engine is not None:
            mezo_step(
                engine, TwoPoint(1e-3), batch, step=step, run_seed=0, num_directions=1, learning_rate=1e-6
            )
        elif case == "reference":
            reference_step(loaded.model, loss, lr=1e-6, eps=1e-3, seed=step)
        elif case == "adamw":
            loaded.model.requires_grad_(True)
            optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=1e-6)
            loss().backward()
            optimizer.step()
        else:
            with torch.no_grad():
                loss()
    return _peak()


def _forget_peak() -> None:
    """Let the kernel count the peak from here on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(_case(*sys.argv[1:4])))
