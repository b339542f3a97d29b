"""Runs and baselines in one table, from what they left on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.baselines.compare import COLUMNS, compare, footnote, markdown
from mezo.baselines.linear_probe import write_folder
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.summary import NAME, Summary, read_summary, write_summary
from mezo.util.atomic_files import write_text
from mezo.util.escaping import markdown_text


def record(
    step: int, accuracy: float | None, loss: float = 0.5, metrics: dict[str, float] | None = None
) -> EvalRecord:
    return EvalRecord(step, "validation", accuracy, loss, 100, 2.0, metrics or {})


def run(path: Path, evals: list[EvalRecord], summary: Summary | None = None) -> Path:
    folder = RunFolder.create(path)
    write_text(folder.config, MeZOConfig.build(task="cb", tuning="lora").to_yaml())
    with MetricsWriter(folder.metrics) as writer:
        for step in range(10):
            writer.write(StepRecord(step, 0.7, 1e-3, (0.1,), 3.0, 100))
        for item in evals:
            writer.write(item)
    if summary:
        write_summary(path, summary)
    return path


def test_a_run_has_its_headline_metric_before_after_and_at_best(tmp_path: Path) -> None:
    evals = [
        record(s, 0.5, metrics={"macro-f1": f, "accuracy": 0.5}) for s, f in ((0, 0.2), (5, 0.75), (10, 0.7))
    ]
    summary = Summary("AdamW lora", 120.0, 3 << 30)
    (line,) = compare([run(tmp_path / "a", evals, summary)])
    expected = ("a", "cb", "AdamW lora", "macro-f1", "20.0 %", "70.0 %", "75.0 %", "10", "2.0", "3.00")
    assert line.cells() == expected


def test_a_run_without_a_summary_counts_its_own_seconds(tmp_path: Path) -> None:
    (line,) = compare([run(tmp_path / "a", [record(0, 0.25), record(10, 0.5)])])
    assert (line.method, line.metric, line.seconds) == ("MeZO lora", "accuracy", 10 * 3.0 + 2 * 2.0)
    assert line.cells()[-1] == "-"


def test_of_losses_the_smallest_is_the_best(tmp_path: Path) -> None:
    losses = [record(0, None, 2.0), record(5, None, 0.5), record(10, None, float("nan"))]
    (line,) = compare([run(tmp_path / "a", losses)])
    assert (line.metric, line.start, line.best) == ("loss", 2.0, 0.5)


def test_a_baseline_without_steps_has_no_before(tmp_path: Path) -> None:
    write_folder(tmp_path / "p", MeZOConfig.build(), [record(0, 0.75)], Summary("linear probe", 6.0, 1 << 30))
    (line,) = compare([tmp_path / "p"])
    assert (line.start, line.end, line.best, line.steps) == (None, 0.75, 0.75, 0)


@pytest.mark.parametrize(("shots", "method"), [(0, "zero-shot"), (16, "16-shot")])
def test_what_eval_printed_is_a_line_too(tmp_path: Path, shots: int, method: str) -> None:
    file = tmp_path / "zero.json"
    values = dict(task="sst2", accuracy=0.5, loss=0.7, metrics={"accuracy": 0.5}, seconds=60.0, shots=shots)
    file.write_text(json.dumps({**values, "peak_memory_bytes": 1 << 30}))
    (line,) = compare([file])
    assert line.cells() == ("zero", "sst2", method, "accuracy", "-", "50.0 %", "50.0 %", "0", "1.0", "1.00")


def test_names_that_are_the_same_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [run(tmp_path / part / "run", [record(0, 0.5)]) for part in ("a", "b")]
    assert [line.name for line in compare(paths)] == [str(p) for p in paths]


def test_markdown_has_a_cell_for_every_column(tmp_path: Path) -> None:
    lines = markdown(compare([run(tmp_path / "a|b", [record(0, 0.5)])])).splitlines()
    assert len(lines) == 3
    assert all(len(line.replace("\\|", "").split("|")) == len(COLUMNS) + 2 for line in lines)


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(MezoError, match=r"x\.json: expected what `mezo eval --json` prints"):
        compare([tmp_path / "x.json"])
    with pytest.raises(MezoError, match=r"not a run of mezo"):
        compare([tmp_path])
    with pytest.raises(MezoError, match=r"no such run folder"):
        compare([tmp_path / "none"])


@given(st.text(), st.floats(0, 1e9), st.integers(0, 1 << 50))
def test_a_summary_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, method: str, seconds: float, peak: int
) -> None:
    folder = tmp_path_factory.mktemp("summary")
    assert read_summary(folder) is None
    write_summary(folder, Summary(method, seconds, peak))
    assert read_summary(folder) == Summary(method, seconds, peak)


@pytest.mark.parametrize("text", ["", "[]", '{"method": "x"}', '{"method": 1, "seconds": "a"}', "\ufffe"])
def test_a_broken_summary_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(MezoError, match=r"summary\.json: expected an object with method"):
        read_summary(tmp_path)


def test_runs_that_were_judged_on_other_examples_are_marked(tmp_path: Path) -> None:
    one, two, three = (
        run(tmp_path / name, [replace(record(0, 0.5), examples_fingerprint=rows)])
        for name, rows in (("one", "x"), ("two", "y"), ("three", "x"))
    )
    lines = compare([one, two, three])
    assert [line.cells()[0] for line in lines] == ["one", "two *", "three"]
    assert "two: evaluated on other examples" in (footnote(lines) or "")
    assert markdown(lines).endswith(markdown_text(footnote(lines) or ""))
    assert footnote(compare([one, three])) is None
    evaluated = {"task": "cb", "metrics": {"accuracy": 0.5}, "loss": 0.7, "seconds": 1.0, "examples": 100}
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({**evaluated, "examples_fingerprint": "z"}))
    assert [line.elsewhere for line in compare([one, three, file])] == [False, False, True]
