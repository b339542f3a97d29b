"""Rewards in processes of their own: values, and what hangs, raises, dies or is no number, each with its row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.objectives import Reward, objective_named
from mezo.objectives.rewards.workers import RewardWorkers
from mezo.runs.metrics_file import read_metrics
from mezo.scoring import Example
from mezo.training.trainer import MeZOTrainer
from mezo.util import plugins

CODE = """
import os, time
def count(row, output):
    print("this goes to standard error")
    return len(output) + row["bonus"]
def scaled(row, output, by=1.0):
    return by * len(output)
def odd(row, output):
    if output == "hang":
        time.sleep(1000)
    if output == "raise":
        raise KeyError("no\\nsuch thing")
    if output == "die":
        os._exit(7)
    return {"nan": float("nan"), "text": "0.5", "none": None, "true": True}.get(output, 1.0)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    for name in ("count", "scaled", "odd"):
        plugins.trust("objective", f"{path}:{name}")
    return path


def objective(name: str, seconds: float = 60.0) -> Reward:
    found = objective_named(name, timeout=seconds)
    assert isinstance(found, Reward)
    assert isinstance(found.scorer, RewardWorkers)
    return found


def example(**fields: Any) -> Example:
    return Example((1,), ((2,),), 0, references=("a",), fields=fields)


def test_values_are_those_of_this_process(file: Path) -> None:
    examples, outputs = [example(bonus=n) for n in range(20)], ["x" * (n % 7) for n in range(20)]
    here = objective_named(f"{file}:count")
    assert isinstance(here, Reward)
    there = objective(f"{file}:count")
    assert there.each(examples, outputs) == here.each(examples, outputs) == [n % 7 + n for n in range(20)]
    assert there(examples, outputs) == here(examples, outputs)
    assert objective(f"{file}:scaled(by=0.5)").each([example()], ["abcd"]) == [2.0]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("hang", r"gave no reward within 1 s \(--reward-timeout\)"),
        ("raise", "raised KeyError: 'no.*such thing'"),
        ("die", r"the process of the function ended \(exit code 7\)"),
        ("nan", "expected a finite number, found nan"),
        ("text", "expected a finite number, found '0.5'"),
        ("none", "expected a finite number, found None"),
    ],
)
def test_what_is_no_reward_names_its_row(file: Path, output: str, said: str) -> None:
    rewards = objective(f"{file}:odd", 1.0 if output == "hang" else 60.0)
    examples = [example(id="q-1"), example(id="q-2"), example(id="q-3")]
    with pytest.raises(MezoError, match=said) as caught:
        rewards(examples, ["fine", output, "fine"])
    assert "example {'id': 'q-2'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert rewards(examples, ["fine", "true", "fine"]) == -1.0  # and what comes after is answered


def test_what_cannot_be_sent_is_said(file: Path) -> None:
    with pytest.raises(
        MezoError, match=r"a field cannot be sent to another process.*leave out --reward-timeout"
    ):
        objective(f"{file}:odd")([example(id=object())], ["fine"])


def test_a_function_that_is_not_there_is_said_before_anything_runs(file: Path) -> None:
    plugins.trust("objective", f"{file}:nothing")
    with pytest.raises(MezoError, match="nothing"):
        objective_named(f"{file}:nothing", timeout=1.0)


def test_the_processes_end_with_the_one_that_asks(file: Path) -> None:
    """Also when it is killed, and the function hangs."""
    program = (
        "import sys, threading, time\n"
        "from mezo.objectives.rewards.workers import RewardWorkers\n"
        "w = RewardWorkers(sys.argv[1], 500)\n"
        "threading.Thread(target=w, args=([{'references': []}], ['hang']), daemon=True).start()\n"
        "while not any(x._process for x in list(w._idle.queue)) and w._idle.qsize() == w.count: time.sleep(0.1)\n"
        "time.sleep(8)\n"
        "print('ready', flush=True)\n"
        "time.sleep(500)\n"
    )
    source = Path(__file__).parents[3] / "src"
    asking = subprocess.Popen(
        [sys.executable, "-c", program, f"{file}:odd"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"ready\n"
        children = children_of(asking.pid)
        assert children
    finally:
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        asking.stdout and asking.stdout.close()  # pyright: ignore[reportUnusedExpression]
    until = time.monotonic() + 60
    while any(alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.2)
    assert [pid for pid in children if alive(pid)] == []


def children_of(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(each) for each in found.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_run_that_a_reward_ends_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs in step 3; mended, the run has the bytes of one in which it never did."""
    path, stuck = tmp_path / "mine.py", tmp_path / "stuck"
    path.write_text(
        "import pathlib, time\n"
        "def reward(row, output):\n"
        f"    log = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "    calls = len(log.read_text()) if log.exists() else 0\n"
        "    log.write_text('x' * (calls + 1))\n"
        f"    if pathlib.Path({str(stuck)!r}).exists() and calls > 10:\n"
        "        time.sleep(1000)\n"
        "    return sum(map(ord, output)) % 97\n"
    )
    monkeypatch.setattr("mezo.objectives.rewards.workers._MOST", 1)  # so that calls are counted in order
    config = MeZOConfig.build(
        model=str(base(tmp_path / "base")),
        objective=f"{path}:reward",
        reward_timeout=10.0,
        num_steps=5,
        batch_size=2,
        epsilon=0.1,
        learning_rate=1e-3,
        max_new_tokens=4,
    )
    rows = [{"prompt": f"{n}:", "completion": " a"} for n in range(4)]

    def run(folder: str, **options: Any) -> None:
        given = None if "resume" in options else config
        options = options if "resume" in options else {**options, "output": tmp_path / folder}
        MeZOTrainer(given, train=MeZODataset(rows), observer=Observer(), artifacts=False, **options).train()

    run("whole")
    (tmp_path / "calls").unlink()
    stuck.touch()
    with pytest.raises(MezoError, match=r"gave no reward within 10 s"):
        run("run")
    assert 0 < len(read_metrics(tmp_path / "run" / "metrics.jsonl").steps) < 5
    stuck.unlink()
    with plugins.allowing([f"{path}:reward"]):
        run("run", resume=tmp_path / "run")
    assert (tmp_path / "run/trajectory.mezo").read_bytes() == (
        tmp_path / "whole/trajectory.mezo"
    ).read_bytes()
