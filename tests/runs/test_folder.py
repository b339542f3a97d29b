"""The run folder: nothing is lost by accident, and what a crash tears is read back to the last whole line."""

import contextlib
import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter, read_metrics
from mezo.util.atomic_files import replacing, write_text

STEP = StepRecord(step=0, loss=0.7, learning_rate=1e-6, projected_grads=(0.5, -2.0), seconds=0.1, tokens=64)
EVAL = EvalRecord(step=1, split="validation", accuracy=0.5, loss=0.7, examples=10, seconds=1.0)

numbers = st.floats(width=64) | st.just(0.0)
step_records = st.builds(
    StepRecord,
    step=st.integers(0, 10**9),
    loss=numbers,
    learning_rate=numbers,
    projected_grads=st.lists(numbers, min_size=1, max_size=4).map(tuple),
    seconds=numbers,
    tokens=st.integers(0, 10**9),
    tokens_asked=st.integers(0, 10**9),
    tokens_reused=st.integers(0, 10**9),
    seconds_saved=numbers,
    profile=st.none() | st.dictionaries(st.text(), st.floats(0, 1e6), max_size=3),
)
eval_records = st.builds(
    EvalRecord,
    step=st.integers(0, 10**9),
    split=st.text(),
    accuracy=st.none() | st.floats(0, 1),
    loss=numbers,
    examples=st.integers(0, 10**9),
    seconds=numbers,
)


def finished_run(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    write_text(run.config, "task: sst2\n")
    with MetricsWriter(run.metrics) as metrics:
        metrics.write(STEP)
    run.plots.mkdir()
    (run.plots / "loss.png").write_bytes(b"png")
    return run


# ---------------------------------------------------------------- the folder


def test_create_makes_all_parents(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a" / "b")
    assert run.path.is_dir()
    assert run.trajectory == tmp_path / "a" / "b" / "trajectory.mezo"


def test_a_run_is_never_replaced_by_accident(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    with pytest.raises(MezoError, match=r"already holds a run; choose another --output, or add --overwrite"):
        RunFolder.create(run.path)
    assert run.metrics.is_file()


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    RunFolder.create(tmp_path, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["mine.txt"]


def test_overwrite_does_not_follow_links(tmp_path: Path) -> None:
    run, elsewhere = finished_run(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    run.model.symlink_to(elsewhere)
    RunFolder.create(run.path, overwrite=True)
    assert not run.model.is_symlink()
    assert (elsewhere / "precious").is_file()


@pytest.mark.parametrize("name", ["README.md", "model"])
def test_files_of_something_else_are_left_alone_even_with_overwrite(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(MezoError, match=f"already holds {name}"):
        RunFolder.create(tmp_path)
    with pytest.raises(MezoError, match="no run of mezo, so --overwrite leaves it alone"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / name).is_dir()


def test_a_start_that_failed_can_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: sst2\n")
    RunFolder.create(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_check_changes_nothing(tmp_path: Path) -> None:
    RunFolder.check(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    run = finished_run(tmp_path / "run")
    RunFolder.check(run.path, overwrite=True)
    assert run.metrics.is_file()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MezoError, match="expected a folder for the run, found a file"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(MezoError, match="cannot prepare the folder"):
        RunFolder.create(tmp_path / "file" / "run")


def test_open_tells_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="no such run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(MezoError, match=r"not a run of mezo \(no config.yaml with metrics.jsonl"):
        RunFolder.open(tmp_path)
    assert RunFolder.open(finished_run(tmp_path / "run").path).path == tmp_path / "run"


# ---------------------------------------------------------------- whole files


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old ä")
    with contextlib.suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text(encoding="utf-8") == "old ä"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert os.stat(tmp_path / "a").st_mode == os.stat(tmp_path / "b").st_mode


# ---------------------------------------------------------------- metrics.jsonl


def same(a: object, b: object) -> bool:
    """Equal, where all that is not finite has become NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b if math.isfinite(a) else math.isnan(b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def all_same(a: StepRecord | EvalRecord, b: StepRecord | EvalRecord) -> bool:
    return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in a.__slots__)


@given(records=st.lists(step_records | eval_records, max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for record in records:
            writer.write(record)
    metrics = read_metrics(path)
    steps = [r for r in records if isinstance(r, StepRecord)]
    evals = [r for r in records if isinstance(r, EvalRecord)]
    assert len(metrics.steps) == len(steps)
    assert len(metrics.evals) == len(evals)
    assert all(map(all_same, steps, metrics.steps))
    assert all(map(all_same, evals, metrics.evals))


@given(cut=st.integers(0, 10_000))
def test_a_torn_tail_is_dropped_and_written_over(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for _ in range(3):
            writer.write(STEP)
    size = path.stat().st_size
    os.truncate(path, cut % size)
    whole = (cut % size) * 3 // size
    assert read_metrics(path).steps == [STEP] * whole
    with MetricsWriter(path) as writer:
        writer.write(EVAL)
    metrics = read_metrics(path)
    assert metrics.steps == [STEP] * whole
    assert metrics.evals == [EVAL]


def test_each_line_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m") as writer:
        writer.write(STEP)
        assert read_metrics(tmp_path / "m").steps == [STEP]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nonsense", "expected a JSON object, found 'nonsense'"),
        ("[1]", "expected an object of kind 'step' or 'eval'"),
        ('{"kind": "other"}', "expected an object of kind 'step' or 'eval'"),
        ('{"kind": "step", "step": 1}', "loss: field required"),
        ('{"kind": "eval", "step": "x"}', "step: input should be a valid integer"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(STEP)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(MezoError) as error:
        read_metrics(path)
    assert f"{path}:2: {complaint}" in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_of_an_older_run_are_read(tmp_path: Path) -> None:
    line = (
        '{"kind": "step", "step": 0, "loss": 0.7, "learning_rate": 1e-06, "projected_grads": [0.5, -2.0],'
        ' "seconds": 0.1, "tokens": 64}\n'
    )
    (tmp_path / "metrics.jsonl").write_text(line)
    assert read_metrics(tmp_path / "metrics.jsonl").steps == [STEP]
    assert (STEP.tokens_asked, STEP.tokens_reused, STEP.seconds_saved, STEP.profile) == (0, 0, 0.0, None)


def test_a_profile_is_on_a_line_only_where_there_is_one(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m") as writer:
        writer.write(STEP)
        writer.write(dataclasses.replace(STEP, profile={"noise": 0.5, "other": 0.25}))
    plain, profiled = (json.loads(line) for line in (tmp_path / "m").read_text().splitlines())
    assert "profile" not in plain
    assert profiled["profile"] == {"noise": 0.5, "other": 0.25}


def test_missing_metrics_are_told(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="cannot read the metrics: No such file"):
        read_metrics(tmp_path / "none")
