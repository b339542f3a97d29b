"""Code run in an interpreter of its own, for what happens once a process."""

import os
import subprocess
import sys
from pathlib import Path

import mezo

SOURCE = Path(mezo.__file__).parents[1]
ROOT = Path(__file__).parents[2]


def run(code: str, *arguments: str, source: Path = SOURCE, **environment: str) -> tuple[str, str]:
    """(standard output, standard error); what the code raises fails the test."""
    paths = os.pathsep.join((str(source), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
