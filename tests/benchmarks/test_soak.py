"""Deaths under settings drawn at random: some here, under other settings each time, 1,000 by `make soak`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.processes import ROOT, environment
from benchmarks.soak import what_counts


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are safe on Linux alone")
def test_runs_that_die_at_random_end_in_the_same_bytes() -> None:
    command = [sys.executable, "-m", "benchmarks", "soak", "--deaths", "40", "--seconds", "60"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    print(done.stdout)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (
        f"{told[0]}: {[line for line in told if 'wrong' in line]} {done.stderr[-2000:]}"
    )
    assert told[-1]["deaths"] > 0
    assert told[-1]["unequal"] == 0


@pytest.mark.parametrize("what", ["trajectory.mezo", "model/model.safetensors", "metrics.jsonl", "more"])
def test_a_difference_is_seen(what: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "trajectory.mezo").write_bytes(b"12")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"34")
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0, "seconds": 2.0}\n')
    before = what_counts(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0, "seconds": 3.0}\n')
    assert what_counts(tmp_path) == before
    (tmp_path / what).write_text('{"loss": 1.5, "seconds": 2.0}\n')
    assert what_counts(tmp_path) != before
