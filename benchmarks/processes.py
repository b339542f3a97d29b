"""The environment of a process that a measurement starts with `python -m benchmarks...`."""

import os
from pathlib import Path

import mezo

ROOT = Path(__file__).resolve().parent.parent


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and `variables`; a child imports this benchmarks and this mezo from any folder."""
    paths = [str(ROOT), str(Path(mezo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
