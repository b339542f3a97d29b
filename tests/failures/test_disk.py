"""Disks as the kernel has them, full or read-only, whoever writes: one line says what is safe, what was written is
sound, and the run goes on to the same bytes. The runs are made by `tests.small_disk`, beside this process."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.pages import ROOT

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@functools.cache
def apart() -> list[str] | None:
    """How a program gets mounts of its own here: as root, or as an ordinary user who is root in there; None: not."""
    trial = 'mount -t tmpfs -o size=64k tmpfs "$0" && mount -o remount,size=128k tmpfs "$0"'
    with tempfile.TemporaryDirectory() as folder:
        for how in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
            try:
                done = subprocess.run([*how, "sh", "-c", trial, folder], capture_output=True, check=False)
            except FileNotFoundError:
                return None
            if done.returncode == 0:
                return how
    return None


def program(*arguments: str, how: list[str] | None = None) -> list[dict[str, Any]]:
    """What a Python of its own prints, a line of JSON each."""
    done = subprocess.run(
        [*(how or []), sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def runs(scenario: str, folder: Path) -> list[dict[str, Any]]:
    if (how := apart()) is None:
        pytest.skip("this place allows no mounts, not even to a program in a namespace of its own")
    return program("-m", "tests.small_disk", scenario, str(folder), how=how)


def check(found: dict[str, Any], why: str) -> None:
    """One line, that tells the truth; and nothing is lost or bent."""
    said = found["said"]
    assert len(said.splitlines()) == 1
    assert why in said
    if "steps before are safe" in said:
        assert f"; the {found['safe']} steps before are safe: " in said
    else:
        assert found["safe"] == 0
    assert found["first_of_whole"]
    assert found["verified"]
    assert found["equal"]


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    found = runs("full", tmp_path)
    for run in found:
        check(run, FULL)
    safe = {where: [run["safe"] for run in found if run["where"] == where] for where in ("start", "steps")}
    assert safe["start"] == [0, 0]
    assert all(0 < steps < 40 for steps in safe["steps"])
    # snapshots are written every ten steps, and final weights after the last
    assert [run["safe"] for run in found if run["where"] == "snapshot"] == [10, 20]
    at_the_end = [run["safe"] for run in found if run["where"] == "end"]
    assert at_the_end == [40] * len(at_the_end) != []


@pytest.mark.slow
def test_a_disk_that_takes_no_further_file(tmp_path: Path) -> None:
    found = runs("inodes", tmp_path)
    for run in found:
        check(run, FULL)
    assert {0, 2, 4, 6} <= {run["safe"] for run in found}  # at the start, two snapshots, the end


@pytest.mark.slow
def test_a_disk_that_turns_read_only(tmp_path: Path) -> None:
    found = runs("readonly", tmp_path)
    assert [run["safe"] for run in found] == [
        2,
        4,
        6,
    ]  # what is open can still be written: to the next snapshot
    for run in found:
        check(run, READ_ONLY)
        assert "make it writable, then go on with `mezo train --resume " in run["said"]
        assert run["where"].endswith(f"/.lock: cannot lock the run: {READ_ONLY}")


@pytest.mark.slow
def test_the_commands_on_such_disks(tmp_path: Path) -> None:
    full, *rest = runs("commands", tmp_path)
    assert full["status"] == 2
    assert FULL in full["error"]
    assert [said["status"] for said in rest] == [0] * 5 + [2] * 4
    for said in (full, *rest):
        assert len(said["error"].splitlines()) == (said["status"] == 2), said["command"]
        assert said["status"] == 0 or said is full or READ_ONLY in said["error"]
    resumed, verified, again, finished = (said["out"] for said in rest[:4])
    assert "going on at step 8" in resumed
    assert "equal a replay, byte for byte" in verified
    assert "12 steps sound" in again
    assert "is finished: all 12 steps are done and saved" in finished


LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.resumed import base, config_for, trainer
from mezo.resume.recorder import WriteFailed
work = Path(sys.argv[1])
config = config_for(base(work / "base"), num_steps=400, snapshot_every=3, eval_every=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
try:
    trainer(config, output=work / "run").train()
except WriteFailed as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_files_that_may_grow_no_further(tmp_path: Path) -> None:
    """A limit that the snapshots keep and metrics.jsonl comes to."""
    from tests.resumed import config_for, resume, trainer, what_counts

    from mezo.runs import trajectory

    (said,) = program("-c", LIMITED, str(tmp_path))
    assert "cannot be written: File too large; the " in said
    assert len(trajectory.read(tmp_path / "run/trajectory.mezo")) > 0
    result = resume(tmp_path / "run")
    config = config_for(tmp_path / "base", num_steps=400, snapshot_every=3, eval_every=0)
    whole = trainer(config, output=tmp_path / "whole").train()
    assert what_counts(tmp_path / "run", result) == what_counts(tmp_path / "whole", whole)
