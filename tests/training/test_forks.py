"""Training in a process that was forked, beside one, and in one that was spawned; with Numba loaded before all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.resumed import base

import mezo

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are safe on Linux alone")

_SCRIPT = """
import multiprocessing, os, sys, time

def life(model, data):
    import torch
    torch.set_num_threads(1)
    from mezo import MeZOConfig, MeZOTrainer
    config = MeZOConfig(
        model=model, task="prompt-completion", data=data, batch_size=2, num_steps=2, max_length=16
    )
    result = MeZOTrainer(config).train()
    assert len(result.steps) == 2

def main(how, model, data):
    if "numba" in how:
        import numba
    if "import" in how:
        import mezo.noise.cpu
    if "run" in how:
        life(model, data)
    if "beside" in how:
        sleeper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
        sleeper.start()
        life(model, data)
        assert sleeper.is_alive()
        sleeper.kill()
    for method in ("fork", "spawn"):
        if method in how:
            child = multiprocessing.get_context(method).Process(target=life, args=(model, data))
            child.start()
            child.join()
            assert child.exitcode == 0, f"{method}: exit code {child.exitcode}"
    if "after" in how:
        life(model, data)  # the parent goes on after its child is gone
    print("done")

if __name__ == "__main__":
    main(sys.argv[1].split(","), *sys.argv[2:])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The script, a tiny model, and examples."""
    folder = tmp_path_factory.mktemp("forks")
    script, data = folder / "lives.py", folder / "train.jsonl"
    script.write_text(_SCRIPT, encoding="utf-8")
    data.write_text('{"prompt": "a", "completion": " b"}\n' * 4, encoding="utf-8")
    return script, base(folder / "model"), data


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "fork",
        "numba,import,fork",
        "numba,run,fork,after",
        "numba,beside",
        "numba,spawn",
    ],
)
def test_a_run_lives_in_and_beside_other_processes(how: str, prepared: tuple[Path, Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, str(prepared[0]), how, str(prepared[1]), str(prepared[2])],
        env={**os.environ, "PYTHONPATH": str(Path(mezo.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr[-2000:]
