"""`torchrun -m mezo train`: real processes, over gloo."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tests.parallel.ranks import LIMIT, base_and_data, command, environment, train
from tests.tiny_models import same_files

from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.metrics_file import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    return base_and_data(tmp_path)


def run(processes: int, folder: Path, *arguments: str) -> str:
    """What a run that must succeed printed."""
    done = train(processes, *arguments, "--output", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(folder: Path) -> np.ndarray:
    return trajectory.read(folder / "trajectory.mezo").records


def test_two_processes_are_two_microbatches(arguments: list[str], tmp_path: Path) -> None:
    rest = [*arguments, "--steps", "6", "--gradient-accumulation", "2", "--directions", "2"]
    run(1, tmp_path / "one", *rest)
    said = run(2, tmp_path / "two", *rest)
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [s.loss for s in one.steps] == [s.loss for s in two.steps]
    assert [(e.loss, e.metrics) for e in one.evals] == [(e.loss, e.metrics) for e in two.evals]
    found = re.search(r"2 processes shared data: each sent ([\d.]+) bytes a step", said)
    assert found is not None
    # status, and 2 directions' 2 losses; a checksum before the first of 6 steps
    assert float(found[1]) == pytest.approx(8 * (1 + 4 + 1 / 6), abs=0.05)
    assert float(found[1]) < 100


def test_two_processes_with_directions_are_one(arguments: list[str], tmp_path: Path) -> None:
    rest = [*arguments, "--steps", "4", "--directions", "3"]
    run(2, tmp_path / "two", *rest)  # auto: directions
    run(1, tmp_path / "one", *rest, "--parallel", "directions")
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")


def test_two_processes_with_a_population_that_writes_are_one(arguments: list[str], tmp_path: Path) -> None:
    """Outputs are drawn by the row's numbers, whoever writes them, and together with whatever else."""
    reward = tmp_path / "vowels.py"
    reward.write_text("def vowels(row, output):\n    return sum(output.count(c) for c in 'aeiou')\n")
    rest = [
        *arguments,
        "--objective",
        f"{reward}:vowels",
        "--estimator",
        "es",
        "--directions",
        "4",
        "--steps",
        "3",
    ]
    rest += [
        "--noise",
        "rank-one",
        "--max-new-tokens",
        "6",
        "--temperature",
        "1",
        "--samples",
        "2",
        "--stop",
        "eos",
    ]
    rest += ["--epsilon", "0.05", "--learning-rate", "0.02"]
    run(2, tmp_path / "two", *rest)  # auto: directions
    run(1, tmp_path / "one", *rest, "--parallel", "directions")
    run(1, tmp_path / "apart", *rest, "--parallel", "directions", "--disable-shortcuts", "together")
    assert records(tmp_path / "one").any()
    for name in ("two", "apart"):
        assert np.array_equal(records(tmp_path / "one"), records(tmp_path / name))
        assert same_files(tmp_path / "one" / "model", tmp_path / name / "model")


def test_two_processes_find_the_same_rate(arguments: list[str], tmp_path: Path) -> None:
    rest = [*arguments, "--steps", "4", "--gradient-accumulation", "2", "--learning-rate", "auto"]
    for name, processes in (("one", 1), ("two", 2)):
        run(processes, tmp_path / name, *rest)
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert records(tmp_path / "one")[:, -1].all()
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")


@pytest.mark.parametrize(
    "how",
    [
        ("--optimizer", "muon", "--noise", "kept-basis", "--basis-steps", "3"),
        ("--layer-scaling", "learned"),
    ],
    ids=["muon", "learned"],
)
def test_two_processes_learn_what_one_does(
    how: tuple[str, ...], arguments: list[str], tmp_path: Path
) -> None:
    rest = [*arguments, "--steps", "5", "--gradient-accumulation", "2", *how]
    for name, processes in (("one", 1), ("two", 2)):
        run(processes, tmp_path / name, *rest)
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert records(tmp_path / "one")[:, 0].all()
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")


def test_two_processes_with_rows_along_their_own_directions_are_one(
    arguments: list[str], tmp_path: Path
) -> None:
    rest = [*arguments, "--steps", "4", "--row-directions", "4", "--noise", "rank-one"]
    run(2, tmp_path / "two", *rest)  # auto: one microbatch and four directions, so directions
    run(1, tmp_path / "one", *rest, "--parallel", "directions")
    for name, processes in (("one-data", 1), ("two-data", 2)):
        run(processes, tmp_path / name, *rest, "--gradient-accumulation", "2")
    for one, two in (("one", "two"), ("one-data", "two-data")):
        assert np.array_equal(records(tmp_path / one), records(tmp_path / two))
        assert same_files(tmp_path / one / "model", tmp_path / two / "model")
    written = replay(tmp_path / "two-data", output=tmp_path / "again")
    assert same_files(written, tmp_path / "two-data" / "model")


def test_a_model_in_two_parts_and_two_copies_of_it(arguments: list[str], tmp_path: Path) -> None:
    rest = [*arguments, "--steps", "4", "--gradient-accumulation", "2"]
    run(1, tmp_path / "one", *rest)
    run(2, tmp_path / "parts", *rest, "--tp", "2")
    run(4, tmp_path / "grid", *rest, "--tp", "2")
    assert np.array_equal(records(tmp_path / "parts"), records(tmp_path / "grid"))
    assert same_files(tmp_path / "parts" / "model", tmp_path / "grid" / "model")
    # A slope is a difference of losses, of order 1 and off by 4e-5 at most (test_tensor_parallel.py), over 2e-3.
    assert np.allclose(records(tmp_path / "parts"), records(tmp_path / "one"), rtol=0, atol=4e-5 / 1e-3)
    written = replay(tmp_path / "parts", output=tmp_path / "again")  # by one process, of the whole model
    assert same_files(written, tmp_path / "parts" / "model")


def start(processes: int, arguments: list[str], restarts: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(processes, arguments, restarts=restarts),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rank_at(launcher: subprocess.Popen[str], rank: int, metrics: Path, steps: int) -> int:
    """The process of a rank, once the run has done so many steps."""
    deadline = time.monotonic() + LIMIT
    while not metrics.exists() or metrics.read_bytes().count(b'"kind": "step"') < steps:
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {
        int(found[1]): int(child)
        for child in children
        if (found := re.search(rb"\0RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes()))
    }
    return ranks[rank]


def test_a_killed_rank_is_noticed_and_the_run_goes_on_after_the_restart(
    arguments: list[str], tmp_path: Path
) -> None:
    rest = [*arguments, "--steps", "200", "--gradient-accumulation", "2"]
    run(1, tmp_path / "one", *rest)
    launcher = start(2, [*rest, "--output", str(tmp_path / "two")], restarts=1)
    try:
        os.kill(rank_at(launcher, 1, tmp_path / "two" / "metrics.jsonl", 20), signal.SIGKILL)
        said, _ = launcher.communicate(timeout=LIMIT)
    finally:
        launcher.kill()
    assert launcher.returncode == 0, said
    assert "another process of this run is gone" in said
    assert "going on at step" in said
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")


def test_sigterm_to_one_rank_ends_all_and_fewer_go_on(arguments: list[str], tmp_path: Path) -> None:
    rest = [*arguments, "--steps", "200", "--directions", "3"]
    run(1, tmp_path / "one", *rest, "--parallel", "directions")
    launcher = start(2, [*rest, "--output", str(tmp_path / "two")])
    try:
        os.kill(rank_at(launcher, 1, tmp_path / "two" / "metrics.jsonl", 20), signal.SIGTERM)
        said, _ = launcher.communicate(timeout=LIMIT)
    finally:
        launcher.kill()
    assert re.search(r"terminated at step \d+", said), said
    done = train(1, "--resume", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    assert same_files(tmp_path / "one" / "model", tmp_path / "two" / "model")


def test_a_run_of_one_goes_on_in_two(arguments: list[str], tmp_path: Path) -> None:
    # at a step that was evaluated already, which all processes must know
    rest = [*arguments, "--gradient-accumulation", "2", "--eval-every", "4"]
    run(1, tmp_path / "whole", *rest, "--steps", "8")
    run(1, tmp_path / "two", *rest, "--steps", "4")
    done = train(2, "--resume", str(tmp_path / "two"), "--steps", "8")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(records(tmp_path / "whole"), records(tmp_path / "two"))
    assert same_files(tmp_path / "whole" / "model", tmp_path / "two" / "model")
    whole, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "two"))
    assert [(e.step, e.loss) for e in whole.evals] == [(e.step, e.loss) for e in two.evals]


def test_two_processes_with_preferences_are_one(arguments: list[str], tmp_path: Path) -> None:
    """The start's log-probabilities are shared among the processes, too."""
    rows = [{"prompt": f"{n}:", "chosen": " great" * (1 + n % 3), "rejected": " no"} for n in range(70)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rest = [*arguments, "--data", str(data), "--task", "auto", "--split-sizes", "10%", "--steps", "4"]
    rest += ["--gradient-accumulation", "2"]
    for name, processes in (("one", 1), ("two", 2)):
        run(processes, tmp_path / name, *rest)
    assert np.array_equal(records(tmp_path / "one"), records(tmp_path / "two"))
    kept = [(tmp_path / name / "reference.safetensors").read_bytes() for name in ("one", "two")]
    assert kept[0] == kept[1]
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [(e.loss, e.metrics) for e in one.evals] == [(e.loss, e.metrics) for e in two.evals]
    assert one.evals[-1].metrics["preference-accuracy"] != 0.5


def test_what_cannot_run_so_says_so(arguments: list[str]) -> None:
    for more, message in (
        (["--tp", "2"], "tensor_parallel=2 needs 2 processes, found one: start them with torchrun"),
        (["--tp", "2", "--tuning", "lora"], "tensor_parallel=2 needs tuning=full, found tuning='lora'"),
    ):
        done = train(1, *arguments, *more)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
