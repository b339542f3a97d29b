"""The numbers behind the plots are checked; the pictures, that they are drawn and are what they say."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mezo.events import EvalRecord, StepRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import Metrics, MetricsWriter
from mezo.runs.plots import curves, running_mean, window_for, write_comparison, write_plots


def step(number: int, loss: float = 1.0, grads: tuple[float, ...] = (1.0,)) -> StepRecord:
    return StepRecord(number, loss, 1e-6, grads, 0.1, 10)


def evaluation(number: int, accuracy: float | None = 0.5, split: str = "validation") -> EvalRecord:
    return EvalRecord(number, split, accuracy, 0.7, 100, 1.0)


def run_with(path: Path, steps: list[StepRecord], evals: list[EvalRecord]) -> RunFolder:
    run = RunFolder.create(path)
    with MetricsWriter(run.metrics) as writer:
        for record in [*steps, *evals]:
            writer.write(record)
    return run


def test_running_mean_is_the_mean_of_the_last_values() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 8.0])
    assert running_mean(values, 3)[2:].tolist() == [1.5, 3.0, 6.0]  # windows of 3, NaN left out
    assert np.isnan(running_mean(values, 3)[:2]).all()  # until there are enough steps


def test_running_mean_of_nothing_known_is_unknown() -> None:
    assert np.isnan(running_mean(np.array([np.nan, np.nan]), 2)).all()


@pytest.mark.parametrize(("steps", "window"), [(1, 1), (9, 1), (10, 5), (100, 5), (400, 20), (100_000, 500)])
def test_window(steps: int, window: int) -> None:
    assert window_for(steps) == window


def test_curves() -> None:
    metrics = Metrics(
        steps=[step(0, 2.0, (3.0, -1.0)), step(1, 1.0, (0.0, 0.0)), step(2, 1.0, (0.0, 2.0))],
        evals=[evaluation(0, 0.5), evaluation(3, 0.9), evaluation(3, 1.0, "test")],
    )
    data = curves(metrics)
    assert data.step.tolist() == [1, 2, 3]
    assert data.grad.tolist() == [2.0, 0.0, 1.0]
    assert data.zero.tolist() == [0.0, 1.0, 0.5]
    assert data.split == "validation"
    assert (data.metric, data.score.tolist()) == ("accuracy", [50.0, 90.0])
    assert data.standard_error.tolist() == pytest.approx([5, 3])  # 100 sqrt(p (1 - p) / 100)


@pytest.mark.parametrize(
    ("steps", "evals", "names"),
    [
        (
            [step(i) for i in range(30)],
            [evaluation(0), evaluation(30)],
            "accuracy gradient loss overview zero_gradients",
        ),
        ([step(0, float("nan"), (0.0,))], [], "gradient loss overview zero_gradients"),
        ([step(0)], [evaluation(0, None)], "gradient loss overview zero_gradients"),
        ([], [evaluation(0)], ""),
    ],
    ids=["whole", "one bad step", "no accuracy", "no step"],
)
def test_what_is_drawn(tmp_path: Path, steps: list[StepRecord], evals: list[EvalRecord], names: str) -> None:
    run = run_with(tmp_path / "run", steps, evals)
    written = write_plots(run)
    assert sorted(written) == sorted(
        run.plots / f"{name}.{kind}" for name in names.split() for kind in ("png", "svg")
    )
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        else:
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def spread(number: int) -> StepRecord:
    return replace(step(number), rewards={"mean": 0.5, "std": 0.1, "min": number / 100, "max": 0.9})


def test_the_spread_of_a_population(tmp_path: Path) -> None:
    steps, reward = [*map(spread, range(30))], {"reward:length": 0.25}
    evals = [replace(evaluation(n, None), metrics=reward) for n in (0, 30)]
    data = curves(Metrics([step(0), *steps], evals))
    assert data.rewards[2, :3].tolist() == pytest.approx([float("nan"), 0.0, 0.01], nan_ok=True)
    run = run_with(tmp_path / "run", steps, evals)
    names = {path.stem for path in write_plots(run)}
    assert names == {"loss", "reward-length", "gradient", "zero_gradients", "overview"}
    said = (run.plots / "reward-length.svg").read_text()
    for text in ("least to largest", "± 1 standard deviation", "evaluated at θ"):
        assert f"<!-- {text} -->" in said
    other = run_with(tmp_path / "other", steps, [evaluation(0), evaluation(30)])
    assert {path.stem for path in write_plots(other)} == {
        *("loss", "accuracy", "rewards", "gradient", "zero_gradients", "overview")
    }
    assert "least to largest" not in (other.plots / "accuracy.svg").read_text()


@pytest.mark.slow
def test_drawn_twice_is_the_same(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [step(i, 1 / (i + 1)) for i in range(10)], [])
    first = [path.read_bytes() for path in write_plots(run)]
    assert [path.read_bytes() for path in write_plots(run.path)] == first


def test_several_runs_in_one_picture(tmp_path: Path) -> None:
    runs = {
        "exact": run_with(tmp_path / "a", [step(0)], [evaluation(0), evaluation(1, 0.75)]),
        "rounded": run_with(tmp_path / "b", [step(0)], [evaluation(0), evaluation(1, 0.625)]),
        "unseen": run_with(tmp_path / "c", [step(0)], []),
    }
    written = write_comparison(runs, tmp_path / "plots" / "both")
    assert written == [tmp_path / "plots" / "both.png", tmp_path / "plots" / "both.svg"]
    comments = written[1].read_text()  # matplotlib writes every text of a picture as a comment
    assert "<!-- exact -->" in comments
    assert "<!-- rounded -->" in comments
    assert "<!-- unseen -->" not in comments
    assert write_comparison({"unseen": runs["unseen"]}, tmp_path / "none") == []
    assert not (tmp_path / "none.png").exists()
    losses = write_comparison(
        {"free text": run_with(tmp_path / "d", [step(0)], [evaluation(1, None)])}, tmp_path / "loss"
    )
    assert len(losses) == 2


def test_runs_that_were_judged_on_other_examples_are_marked(tmp_path: Path) -> None:
    judged = [replace(evaluation(0), examples_fingerprint=rows) for rows in ("a", "b", "a")]
    runs = {
        name: run_with(tmp_path / name, [step(0)], [one])
        for name, one in zip(("one", "two", "three"), judged, strict=True)
    }
    _, svg = write_comparison(runs, tmp_path / "all")
    assert "<!-- two * -->" in svg.read_text()
    assert "<!-- one -->" in svg.read_text()
    assert "other examples than the others" in svg.read_text()
    _, svg = write_comparison({name: runs[name] for name in ("one", "three")}, tmp_path / "same")
    assert "other examples" not in svg.read_text()
