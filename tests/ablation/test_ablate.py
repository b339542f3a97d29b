"""`mezo ablate` as a person types it, and a run of a study as it really is."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.cli import toy
from tests.pages import ROOT
from tests.shared import shared
from tests.tiers import mostly_slow

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.case import Case
from mezo.ablation.formats.files import read_plan
from mezo.ablation.run import journal as results
from mezo.ablation.run.cases import BASELINE, Cost, distinct
from mezo.ablation.run.measures import read_outcome, scores
from mezo.ablation.run.processes import environment
from mezo.ablation.run.training import time_one, train_one, trainer_for
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics

STUDY = {"name": "scale", "ablated_part": "Perturbation scale (epsilon)", "action": "REPLACE"}
# A value of each kind of part that the published plan varies, and of those that change what a run holds.
VARIANTS: list[dict[str, Any]] = [
    {"epsilon": 1e-2},
    {"num_directions": 2},
    {"estimator": "one-point"},
    {"memory": "store"},
    {"memory": "regenerate", "granularity": "block"},
    {"optimizer": "momentum"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps([{**STUDY, "replacement": [1e-2, "the moon"], "metrics": ["F1"]}]))
    return str(path)


def config(model: str, data: str, **changes: Any) -> MeZOConfig:
    values = dict(
        model=model, data=data, batch_size=2, num_steps=4, eval_every=2, device="cpu", learning_rate=1e-3
    )
    return MeZOConfig.build(**{**values, **changes})


# ---------------------------------------------------------------- the command


def test_it_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in (
        "--seeds",
        "--minutes",
        "--equal",
        "--jobs",
        "--threshold",
        "--strict",
        "--dry-run",
        "--steps",
    ):
        assert flag in shown


def test_a_dry_run_shows_what_is_run_and_what_is_not(
    plan: str, model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ablate", plan, "--model", model, "--data", data, "--steps", "7", "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path / "o"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "baseline",
        "epsilon: 0.01",
        "not run   scale: the moon: 'moon' is not understood",
        "- {epsilon: ...}  # the moon",
        "runs      6, 0 of them done",
        "7 steps",
    ):
        assert words in shown
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("more", [[], ["--minutes", "5"], ["--equal", "passes"]])
def test_a_dry_run_starts_no_process(
    plan: str,
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mezo.ablation.run.costs.Processes", None)
    assert main(["ablate", plan, "--device", "cpu", "--dry-run", "--output", str(tmp_path / "o"), *more]) == 0
    assert ("--estimate measures it now" in capsys.readouterr().out) == bool(more)


def test_an_estimate_times_the_baseline_alone(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = Cost(step=2.0, fixed=0.0, evaluation=0.0, passes=2.0)
    monkeypatch.setattr("mezo.ablation.run.costs.time_case", lambda case, config: cost)
    arguments = [
        "ablate",
        plan,
        "--device",
        "cpu",
        "--steps",
        "10",
        "--seeds",
        "1",
        "--estimate",
        "--dry-run",
    ]
    assert main([*arguments, "--output", str(tmp_path / "o")]) == 0
    out, err = capsys.readouterr()
    assert err.count("timing a few steps") == 1
    assert "time      about 40 s for 2 runs" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--strict"], "1 of the plan cannot be run (--strict): scale, the moon: "),
        (["--equal", "time"], "--equal: expected steps or passes, found 'time'"),
        (["--minutes", "0"], "--minutes: expected a time above 0, found 0"),
        (["--minutes", "5"], "leave --no-timing out"),
        (["--threshold", "accuracy"], "expected a value, or a metric and a value"),
        (["--task", "sst22"], "unknown task 'sst22'; did you mean 'sst2'"),
    ],
)
def test_a_mistake_is_one_line(
    plan: str, more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "ablate",
        plan,
        "--device",
        "cpu",
        "--dry-run",
        "--no-timing",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main([*arguments, *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mezo: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_plan_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "none.yaml"]) == 2
    assert "none.yaml: cannot read the plan" in capsys.readouterr().err


def test_a_runs_processes_are_quiet_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment(3)["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in environment(None)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # what the person says
    assert environment(3)["OMP_NUM_THREADS"] == "5"


def test_the_packages_own_study_is_bound_whole() -> None:
    """Every setting that it is to vary, and as many runs as the documentation says."""
    base = MeZOConfig(train=("encoder",), learning_rate=1e-4, schedule="linear", num_steps=500)
    bound = bind(read_plan(ROOT / "studies/mezo.yaml"), base)
    assert bound.unbound == ()
    assert bound.uncomputed == {}
    tried = {
        name: {variant.settings[name] for variant in bound.variants if name in variant.settings}
        for name in ("epsilon", "num_directions", "memory", "optimizer", "estimator", "blocks")
    }
    assert tried["epsilon"] >= {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0}
    assert tried["num_directions"] == {1, 2, 4, 8}
    assert tried["memory"] == {"regenerate", "store-layer", "store"}
    assert tried["optimizer"] == {"momentum", "adam"}
    assert tried["estimator"] == {"one-sided", "one-point"}
    settings = distinct([Case(None, BASELINE, {}, base), *bound.variants])
    assert f"That is {3 * settings} runs: {settings} distinct" in (ROOT / "docs/ablation.md").read_text()


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("settings", mostly_slow(VARIANTS, lambda v: "epsilon" in v), ids=str)
def test_every_variant_sees_the_baselines_examples_in_their_order(
    model: str, data: str, settings: dict[str, Any]
) -> None:
    base = config(model, data, eval_examples=4)
    trainers = [trainer_for(c, base.seed, ()) for c in (base, base.model_copy(update=settings))]
    first, second = (t.train_set for t in trainers)
    for step in range(5):
        assert first.batch(step, 2, base.seed) == second.batch(step, 2, base.seed)
    assert trainers[0].validation_set == trainers[1].validation_set


def test_every_seed_is_judged_on_the_same_examples(model: str, data: str) -> None:
    def judges(seed: int, of_study: int) -> list[Any]:
        found = trainer_for(config(model, data, eval_examples=3, seed=seed), of_study, ()).validation_set
        assert found is not None
        return [dict(example.fields or {}) for example in found]

    assert all(judges(seed, 0) == judges(0, 0) for seed in range(3))
    drawn = {json.dumps(judges(0, seed)) for seed in range(6)}
    assert len(drawn) > 1  # another seed of the study draws others


def test_splits_that_are_drawn_are_each_seeds_own(model: str, data: str) -> None:
    """Else a run would be judged on examples that it trains on."""
    for seed in range(2):
        trainer = trainer_for(config(model, data, split_sizes=(4, 4, 4), seed=seed), 0, ())
        prompts = {tuple(e.prompt) for e in trainer.train_set.examples}
        assert trainer.validation_set is not None
        assert not prompts & {tuple(e.prompt) for e in trainer.validation_set.examples}


@pytest.mark.parametrize("settings", mostly_slow(VARIANTS, lambda v: "granularity" in v), ids=str)
def test_a_run_is_trained_measured_and_written_down(
    model: str, data: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    asked = config(model, data, **settings)
    request = {"config": asked.model_dump(mode="json"), "evaluation_seed": 0, "metrics": ["macro-f1"]}
    train_one(request, tmp_path / "run")
    run, outcome = RunFolder(tmp_path / "run"), read_outcome(tmp_path / "run")
    metrics = read_metrics(run.metrics)
    assert [e.step for e in metrics.evals] == [0, 2, 4]
    assert set(scores(metrics.evals[-1])) == {"accuracy", "f1", "loss"}
    a_step = 4 if "num_directions" in settings else 1 if "estimator" in settings else 2
    assert outcome.forward_passes == 4 * a_step
    assert outcome.peak_memory_bytes >= (outcome.step_memory_bytes or 0) > 0
    assert outcome.device == "cpu"
    written = MeZOConfig.load(run.config)
    of_auto = {"matmul": asked.matmul, "task": asked.task}  # what "auto" came to is the run's
    assert written.model_copy(update=of_auto) == asked
    assert run.trajectory.exists()
    assert not run.model.exists()  # a study of sixty runs would fill a disk with models


def test_a_run_without_validation_examples_is_refused(model: str, data: str, tmp_path: Path) -> None:
    asked = config(model, f"{data}/train.jsonl").model_dump(mode="json")
    with pytest.raises(MezoError, match="compares runs on validation examples, found none"):
        train_one({"config": asked, "evaluation_seed": 0, "metrics": []}, tmp_path / "run")


PASSES = [
    ({"num_directions": 2, "final_directions": 6}, 8),
    ({}, 2),
    ({"num_directions": 2}, 4),
    ({"estimator": "one-sided", "num_directions": 3}, 4),
    ({"gradient_accumulation": 2}, 4),
]


@pytest.mark.parametrize(("settings", "passes"), mostly_slow(PASSES, lambda s, _: "final_directions" in s))
def test_what_a_step_takes_is_counted(model: str, data: str, settings: dict[str, Any], passes: float) -> None:
    cost = time_one(config(model, data, **settings), 0, 1.0)
    assert cost.passes == passes
    assert min(cost.step, cost.evaluation) > 0
    assert cost.fixed > 1.0


# ---------------------------------------------------------------- whole studies


def told(folder: Path) -> list[dict[str, Any]]:
    return [line for line in results.read(folder / "results.jsonl") if line["kind"] == "run"]


@pytest.mark.slow
def test_the_published_plan_is_run_to_its_reports(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All four studies, each variant in its own process, on a model of some thousand weights."""
    page = shared("plans/example-plan-page.md")
    arguments = [
        *("ablate", str(page), "--model", model, "--data", data, "--batch-size", "4", "--steps", "5"),
        *("--seeds", "2", "--jobs", "2", "--device", "cpu", "--learning-rate", "1e-3"),
        *("--output", str(tmp_path / "o")),
    ]
    assert main([*arguments, "--estimate"]) == 0
    assert "time      about" in capsys.readouterr().out
    lines = told(tmp_path / "o")
    assert {line["status"] for line in lines} == {"ok"}
    assert len({line["study"] for line in lines} - {None}) == 4
    assert len({(line["study"], line["variant"]) for line in lines}) == 9
    for name in ("report.html", "report.md"):
        assert (tmp_path / "o" / name).stat().st_size > 1000
    before = (tmp_path / "o" / "results.jsonl").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "o" / "results.jsonl").read_bytes() == before


@pytest.mark.slow
def test_equal_passes_and_equal_minutes(plan: str, model: str, data: str, tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text(json.dumps([{**STUDY, "ablated_part": "number of directions n", "replacement": [2, 4]}]))
    arguments = [
        "ablate",
        str(path),
        "--model",
        model,
        "--data",
        data,
        "--batch-size",
        "2",
        "--device",
        "cpu",
    ]
    output = ["--output", str(tmp_path / "passes"), "--equal", "passes", "--steps", "20", "--seeds", "1"]
    assert main([*arguments, *output]) == 0
    assert {line["metrics"]["forward_passes"] for line in told(tmp_path / "passes")} == {40.0}
    assert [line["steps"] for line in told(tmp_path / "passes")] == [20, 10, 5]
    output = ["--output", str(tmp_path / "minutes"), "--minutes", "1.5", "--seeds", "1"]
    assert main([*arguments, *output]) == 0
    steps = [line["steps"] for line in told(tmp_path / "minutes")]
    assert min(steps) >= 1
    assert all(math.isfinite(line["metrics"]["train_seconds"]) for line in told(tmp_path / "minutes"))
