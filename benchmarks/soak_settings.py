"""Settings of the runs of the soak, drawn from the registries; their tiny model and reviews."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any, get_args


def drawn(random: random.Random) -> dict[str, Any]:
    """Random settings of a run, from every registry and choice that affects its numbers."""
    from mezo.config import MeZOConfig, choices_of
    from mezo.estimators import ESTIMATORS
    from mezo.optimizers import OPTIMIZERS

    values: dict[str, Any] = {
        "estimator": random.choice([*ESTIMATORS]),
        "optimizer": random.choice([*OPTIMIZERS]),
    }
    for name in ("tuning", "noise", "dtype", "rounding", "memory", "schedule"):
        values[name] = random.choice(choices_of(name))
    for name in ("blocks", "layer_scaling"):
        choices = get_args(MeZOConfig.model_fields[name].annotation)
        values[name] = random.choice([choices[0]] * 2 * len(choices) + [*choices])
    values["gradient_accumulation"] = random.choice([1, 1, 2])
    values["num_directions"] = random.choice([1, 2, 3])
    values["final_directions"] = random.choice([None, None, values["num_directions"] + 2])
    values["normalize_perturbations"] = random.random() < 0.2
    values["clip_quantile"] = random.choice([None, None, None, 0.5])
    values["granularity"] = (
        random.choice([None, "matrix", "block", "element"]) if values["memory"] == "regenerate" else None
    )
    values["snapshot_every"] = random.choice([0, 2, 3, 5, 7, None])
    values["eval_every"] = random.choice([0, 4, 9])
    values["checksum_every"] = random.choice([1, 3])
    values["num_steps"] = random.randrange(16, 41)
    values["seed"] = random.randrange(1000)
    return values


def fixed(work: Path) -> dict[str, Any]:
    """Settings that all runs share."""
    return {
        "model": str(work / "base"),
        "data": str(work / "data"),
        "task": "sst2",
        "batch_size": 3,
        "learning_rate": 1e-3,
        "lora_rank": 2,
        "prefix_tokens": 2,
        "cone_warmup": 5,
        "history": 8,
        "rank_timeout": 20.0,
        "matmul": "torch",
        "stop_on_explosion": False,
    }


def prepare(work: Path) -> None:
    """Write the model and the reviews; import and compile what runs need, so that their forks do not."""
    import torch

    torch.set_num_threads(1)
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import torch.distributed
    from tests.cli import toy
    from tests.resumed import base

    from mezo.cli import main
    from mezo.runs import trajectory
    from mezo.training import artifacts

    trajectory.BLOCK_RECORDS = 4
    artifacts.write_plots = lambda run: None  # takes a second, and is not compared
    base(work / "base")
    toy.reviews(work / "data")
    for tuning in ("full", "lora", "prefix"):
        config = work / "warm.yaml"
        config.write_text(json.dumps({**fixed(work), "tuning": tuning, "dtype": "bfloat16", "num_steps": 3}))
        with (
            (work / "said").open("w") as out,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            assert main(["train", "--config", str(config), "--output", str(work / "warm" / tuning)]) == 0
