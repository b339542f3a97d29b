"""SIGKILL at random moments of one run: a few of them here, a hundred by `make soak`; and disks that fill up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pages import ROOT

pytestmark = pytest.mark.slow


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    from benchmarks.kill_loop import kill_loop

    found = kill_loop(tmp_path, 6, steps=60, seed=1, optimizer="momentum")
    assert found["exit"] == {"killed": 0, "whole": 0}
    assert found["kills"] == 6
    assert found["equal"]


FULL = """
import sys
from pathlib import Path
from tests.resumed import base, config_for, trainer
from mezo.recording import WriteFailed
work = Path(sys.argv[1])
model = base(Path(sys.argv[2]) / "base")
if sys.argv[3] == "limit":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    trainer(config_for(model, num_steps=400, snapshot_every=3, eval_every=0), output=work / "run").train()
except WriteFailed as error:
    print(error)
else:
    print("it was never full")
"""


def fill(work: Path, model: Path, *how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(work), str(model), *how],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(work: Path, model: Path) -> None:
    """What was written is valid, and the run goes on from it now that there is room."""
    from tests.resumed import config_for, resume, trainer, what_counts

    from mezo import trajectory

    config = config_for(model / "base", num_steps=400, snapshot_every=3, eval_every=0)
    assert len(trajectory.read(work / "run/trajectory.mezo")) > 0
    result = resume(work / "run")
    whole = trainer(config, output=model / "whole").train()
    assert what_counts(work / "run", result) == what_counts(model / "whole", whole)


def test_files_that_may_grow_no_further(tmp_path: Path) -> None:
    """A limit that the snapshots keep and metrics.jsonl comes to."""
    said = fill(tmp_path, tmp_path, "limit", str(60_000))
    assert "cannot be written: File too large; the " in said
    check(tmp_path, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this place allows no mounts")
    try:
        said = fill(disk, tmp_path, "disk")
        assert "cannot be written: " in said
        assert "No space left on device" in said
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        check(disk, tmp_path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
