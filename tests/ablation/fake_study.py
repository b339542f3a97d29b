"""A study of made-up runs (`fake_child`). `python fake_study.py OUT` runs one, to be killed at will."""

import sys
from pathlib import Path
from typing import Any

from mezo.ablation.plans.plan import Plan
from mezo.ablation.run.prepare import Options, PreparedStudy, prepare
from mezo.ablation.run.runner import run_study
from mezo.config import MeZOConfig

PROGRAM = (sys.executable, str(Path(__file__).with_name("fake_child.py")))
CONFIG = MeZOConfig(num_steps=4, device="cpu", epsilon=1e-3, seed=7)


def plan(*epsilons: float, **more: Any) -> Plan:
    study = {
        "name": "scale",
        "ablated_part": "epsilon",
        "action": "REPLACE",
        "metrics": ["Accuracy/F1", "beauty"],
    }
    return Plan.build(title="A plan", studies=[{**study, "replacement": list(epsilons), **more}])


def prepared(folder: Path, *epsilons: float, seeds: int = 2, **options: Any) -> PreparedStudy:
    asked = {"jobs": 1, "estimate": False, **options}
    return prepare(plan(*epsilons), CONFIG, folder, Options(seeds=seeds, **asked))


if __name__ == "__main__":
    found = run_study(prepared(Path(sys.argv[1]), 1e-2, 2e-2), program=PROGRAM)
    print(found.made, found.stopped)
