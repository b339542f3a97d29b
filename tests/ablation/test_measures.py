"""The numbers of a run, by hand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.ablation.run import measures
from mezo.ablation.run.measures import Outcome, Threshold, area_under_curve, mean_at_the_end, measure, scores
from mezo.events import EvalRecord, StepRecord
from mezo.runs.metrics_file import Metrics


def step(
    number: int, loss: float = 1.0, grads: tuple[float, ...] = (1.0,), seconds: float = 0.5
) -> StepRecord:
    return StepRecord(number, loss, 1e-3, grads, seconds, 100)


def judged(at: int, accuracy: float | None, loss: float = 1.0, **metrics: float) -> EvalRecord:
    named = {name.replace("_", "-"): value for name, value in metrics.items()}
    own = {} if accuracy is None else {"accuracy": accuracy}
    return EvalRecord(at, "validation", accuracy, loss, 10, 0.1, {**own, **named})


def outcome(**changes: Any) -> Outcome:
    values = dict(seconds=7200.0, forward_passes=8, peak_memory_bytes=3_000_000_000, device="cpu")
    return Outcome(**{**values, **changes})


RUN = Metrics(
    [step(0, 4.0), step(1, 3.0, (0.0, 0.0)), step(2, 2.0, (0.0, 1.0), 1.5), step(3, 1.0)],
    [judged(0, 0.5, 2.0), judged(2, 0.75, 1.5), judged(4, 0.625, 1.0)],
)


def test_every_number_of_a_run() -> None:
    assert measure(RUN, outcome(devices=2, step_memory_bytes=2_500_000_000)) == {
        "accuracy": 0.625,
        "loss": 1.0,
        "train_loss": 1.0,  # a tenth of four steps is the last one
        "zero_gradient_fraction": 0.25,  # only step 1 had no slope at all
        "train_seconds": 3.0,
        "device_hours": 4.0,
        "forward_passes": 8.0,
        "peak_memory_gb": 3.0,
        "step_memory_gb": 2.5,
        "area_under_curve": (2 * 0.625 + 2 * 0.6875) / 4,
    }


def test_the_headline_comes_first_and_a_device_has_memory_of_its_own() -> None:
    evals = [EvalRecord(4, "validation", 0.5, 1.0, 10, 0.1, {"macro-f1": 0.25, "accuracy": 0.5})]
    found = measure(Metrics(RUN.steps, evals), outcome(device_memory_bytes=500_000_000))
    assert next(iter(found)) == "f1"
    assert found["f1"] == 0.25
    assert found["device_memory_gb"] == 0.5
    assert "area_under_curve" not in found  # one evaluation is no curve


def test_the_training_loss_is_of_the_last_tenth() -> None:
    steps = [step(n, float(n)) for n in range(40)]
    assert measure(Metrics(steps, []), outcome())["train_loss"] == (36 + 37 + 38 + 39) / 4


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ({"squad-f1": 0.5, "squad-em": 0.25}, ["f1", "exact_match", "loss"]),
        ({"macro-f1": 0.5, "drop-f1": 0.25}, ["f1", "drop-f1", "loss"]),
        ({"rougeL": 0.5}, ["rougeL", "loss"]),
        ({}, ["loss"]),
    ],
)
def test_metrics_go_by_the_names_of_a_study(metrics: dict[str, float], names: list[str]) -> None:
    found = scores(EvalRecord(1, "validation", None, 2.0, 10, 0.1, metrics))
    assert list(found) == names
    assert list(found.values()) == [*metrics.values(), 2.0]


def test_steps_and_seconds_to_a_threshold() -> None:
    found = measures.to_threshold(RUN, Threshold("accuracy", 0.7, "given"))
    # The evaluation after two steps reached it; these took half a second each.
    assert found == {"steps_to_threshold": 2.0, "seconds_to_threshold": 1.0, "reached_threshold": 1.0}
    lower = measures.to_threshold(RUN, Threshold("loss", 1.0, "given"))  # a loss is reached from above
    assert lower == {"steps_to_threshold": 4.0, "seconds_to_threshold": 3.0, "reached_threshold": 1.0}


@pytest.mark.parametrize("threshold", [Threshold("accuracy", 0.8, ""), Threshold("f1", 0.1, "")])
def test_a_threshold_that_is_not_reached_is_no_number(threshold: Threshold) -> None:
    found = measures.to_threshold(RUN, threshold)
    assert math.isnan(found["steps_to_threshold"])
    assert math.isnan(found["seconds_to_threshold"])
    assert found["reached_threshold"] == 0.0


def test_a_loss_that_is_not_finite_reaches_nothing() -> None:
    assert not Threshold("loss", 1.0, "").reached(judged(1, 0.5, math.nan))
    assert Threshold("loss", 1.0, "").reached(judged(1, 0.5, 1.0))


def test_the_mean_at_the_end_leaves_out_what_is_not_finite() -> None:
    runs = [[judged(0, 0.0), judged(4, 0.5)], [judged(4, 0.25)], [judged(4, math.nan)], []]
    assert mean_at_the_end(runs, "accuracy") == (0.375, 2)
    assert math.isnan(mean_at_the_end([], "accuracy")[0])


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 64)), min_size=1, max_size=20))
def test_the_area_is_the_mean_height(gaps: list[tuple[int, int]]) -> None:
    """Against the sum over single steps of the curve drawn straight between evaluations."""
    at, points = 0, [(0, 0.0)]
    for gap, height in gaps:
        at += gap
        points.append((at, height / 64))
    total = 0.0
    for (start, low), (end, high) in zip(points, points[1:], strict=False):
        total += sum(low + (high - low) * (i + 0.5) / (end - start) for i in range(end - start))
    found = area_under_curve([judged(s, a) for s, a in points], "accuracy")
    # At most 2,000 terms of at most 1, each with a few roundings of 2^-53.
    assert found == pytest.approx(total / at, abs=1e-11)


def test_a_curve_of_no_length_has_no_area() -> None:
    assert math.isnan(area_under_curve([judged(0, 0.5)], "accuracy"))
    assert math.isnan(area_under_curve([judged(0, 0.5), judged(4, 0.5)], "f1"))
