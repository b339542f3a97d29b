"""One set of figures, printed three ways."""

import json

import pytest
from benchmarks.report import Column, Report, of_ratio, of_seconds

ROW = {
    "name": "first",
    "seconds": {"step": {"median": 0.51234, "min": 0.5, "max": 0.6}},
    "ratios": {"step_over_bare": {"median": 0.651, "min": 0.64, "max": 0.7}},
}
REPORT = Report(
    "step",
    {"rounds": 7},
    [ROW],
    (
        Column("name", lambda row: row["name"]),
        Column("step, s", of_seconds("step")),
        Column("ratio", of_ratio("step_over_bare")),
        Column("absent", of_ratio("reference_over_step")),
    ),
    threads=2,
    notes=("said below",),
)


def test_markdown_is_a_table() -> None:
    assert REPORT.markdown().splitlines() == [
        "| name | step, s | ratio | absent |",
        "| --- | --- | --- | --- |",
        "| first | 0.512 | 0.65 (0.64 to 0.70) |  |",
    ]


def test_json_holds_figures_command_and_machine() -> None:
    found = json.loads(json.dumps(REPORT.as_dict()))
    assert found["command"] == "python -m benchmarks step"
    assert found["options"] == {"rounds": 7}
    assert found["rows"] == [ROW]
    assert found["machine"]["threads"] == 2
    assert {"cpu", "cores", "torch", "transformers"} <= found["machine"].keys()


def test_table_names_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    REPORT.print()
    printed = capsys.readouterr().out
    assert "0.65 (0.64 to 0.70)" in printed
    assert "said below" in printed
    assert "2 threads, torch " in printed
