"""Running a study: each run once, whatever is killed; each result kept; and nothing left behind."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ablation import fake_child, fake_study
from tests.ablation.fake_study import CONFIG, PROGRAM, plan, prepared

from mezo.ablation.run import journal as results
from mezo.ablation.run.cases import Cost
from mezo.ablation.run.folder import StudyFolder
from mezo.ablation.run.prepare import Options, prepare, slots, threads
from mezo.ablation.run.runner import Finished, run_study
from mezo.errors import MezoError
from mezo.events import EvalRecord, StepRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics

EPSILONS = (1e-3, 1e-2, fake_child.RAISES)


@pytest.fixture(autouse=True)
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAKE_STARTS", "FAKE_ENDS"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def started(tmp_path: Path, name: str = "FAKE_STARTS") -> Counter[str]:
    return Counter(line.split()[0] for line in (tmp_path / name).read_text().splitlines())


def lines(folder: Path, kind: str = "run") -> list[dict[str, Any]]:
    return [line for line in results.read(folder / "results.jsonl") if line["kind"] == kind]


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def named(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The run lines by variant and seed; there is one of each."""
    found = {(line["variant"], line["seed"]): line for line in lines(folder)}
    assert len(found) == len(lines(folder))
    return found


# ---------------------------------------------------------------- a study from its start to its end


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished, list[str]]:
    """A study of three variants: the baseline again, another, and one that fails."""
    folder, said = tmp_path_factory.mktemp("study"), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FAKE_STARTS", "FAKE_ENDS"):
            patch.setenv(name, str(folder / name))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        found = run_study(
            prepared(folder / "out", *EPSILONS), ["mezo", "ablate"], say=said.append, program=PROGRAM
        )
    return folder, found, said


def test_every_variant_and_seed_has_a_line(study: tuple[Path, Finished, list[str]]) -> None:
    folder, found, said = study
    runs = named(folder / "out")
    assert set(runs) == {(v, s) for v in ("baseline", "0.001", "0.01", "0.5") for s in (7, 8)}
    assert (found.made, found.left, found.stopped) == (4, 2, False)
    assert [line["study"] for line in runs.values()].count(None) == 2
    assert len(said) == 6
    assert said[0] == "[1/6] baseline, seed 7: accuracy 96.9 % loss 0.0310, 4 steps in 1.0 s"


def test_what_is_run_twice_in_the_plan_is_run_once(study: tuple[Path, Finished, list[str]]) -> None:
    folder, _, _ = study
    runs = named(folder / "out")
    assert set(started(folder).values()) == {1}
    for seed in (7, 8):
        same = ("key", "metrics", "run", "config")
        assert [runs["0.001", seed][n] for n in same] == [runs["baseline", seed][n] for n in same]


def test_a_failed_variant_is_told_with_its_error(study: tuple[Path, Finished, list[str]]) -> None:
    folder, found, said = study
    for seed in (7, 8):
        line = named(folder / "out")["0.5", seed]
        assert (line["status"], line["error"], line["metrics"]) == ("failed", "the loss is not finite", {})
        assert "not finite" in (folder / "out" / line["run"] / "log.txt").read_text()
    assert found.failed == tuple((f"scale: 0.5, seed {s}", "the loss is not finite") for s in (7, 8))
    assert said[-1].endswith("scale: 0.5, seed 8: failed: the loss is not finite")


def test_the_numbers_are_those_of_the_runs_files(study: tuple[Path, Finished, list[str]]) -> None:
    """Recomputed from metrics.jsonl and process.json, without the package's own measures."""
    folder, found, _ = study
    out = folder / "out"
    finals = []
    for seed in (7, 8):
        files = objects(out / named(out)["baseline", seed]["run"] / "metrics.jsonl")
        finals.append([line["accuracy"] for line in files if line["kind"] == "eval"][-1])
    threshold = sum(finals) / 2
    assert found.threshold is not None
    assert found.threshold.value == pytest.approx(
        threshold, rel=1e-15
    )  # a mean of two, summed in another way
    for line in (line for line in lines(out) if line["status"] == "ok"):
        files = objects(out / line["run"] / "metrics.jsonl")
        evals = [x for x in files if x["kind"] == "eval"]
        process = json.loads((out / line["run"] / "process.json").read_text())
        reached = [x["step"] for x in evals if x["accuracy"] >= found.threshold.value]
        # Evaluations lie one step apart, so the area is the mean of the heights halfway between them.
        heights = [(a["accuracy"] + b["accuracy"]) / 2 for a, b in zip(evals, evals[1:], strict=False)]
        expected = {
            "accuracy": evals[-1]["accuracy"],
            "loss": evals[-1]["loss"],
            "train_loss": 1.0,
            "zero_gradient_fraction": 0.0,
            "train_seconds": 1.0,
            "device_hours": 3.6 / 3600,
            "forward_passes": 8.0,
            "peak_memory_gb": process["peak_memory_bytes"] / 1e9,
            "area_under_curve": pytest.approx(math.fsum(heights) / len(heights), rel=1e-14),
            "reached_threshold": float(bool(reached)),
            "steps_to_threshold": reached[0] if reached else None,
            "seconds_to_threshold": 0.25 * reached[0] if reached else None,
        }
        assert line["metrics"] == expected
    assert {line["metrics"]["reached_threshold"] for line in lines(out) if line["metrics"]} == {0.0, 1.0}


def test_what_was_asked_for_is_told(study: tuple[Path, Finished, list[str]]) -> None:
    folder, found, _ = study
    about, threshold = lines(folder / "out", "meta")
    assert about["command"] == ["mezo", "ablate"]
    assert about["title"] == "A plan"
    assert "4 steps for each run" in about["budget"]
    assert found.threshold is not None
    assert threshold["threshold"]["value"] == found.threshold.value
    (told,) = lines(folder / "out", "study")
    assert told["metrics"] == ["accuracy", "f1"]
    assert told["uncomputed"] == ["beauty"]
    assert told["unbound"] == []


def test_the_baselines_runs_come_first(study: tuple[Path, Finished, list[str]]) -> None:
    folder, _, _ = study
    order = [line.split()[0] for line in (folder / "FAKE_STARTS").read_text().splitlines()]
    runs = named(folder / "out")
    assert order == [
        runs[v, s]["key"]
        for v, s in (("baseline", 7), ("baseline", 8), ("0.01", 7), ("0.5", 7), ("0.01", 8), ("0.5", 8))
    ]


# ---------------------------------------------------------------- going on


def test_going_on_makes_only_what_failed(study: tuple[Path, Finished, list[str]], tmp_path: Path) -> None:
    shutil.copytree(study[0] / "out", tmp_path / "out")
    before = (tmp_path / "out/results.jsonl").read_bytes()
    again = run_study(prepared(tmp_path / "out", *EPSILONS), ["mezo", "ablate"], program=PROGRAM)
    runs = named(tmp_path / "out")
    assert started(tmp_path) == Counter(runs["0.5", seed]["key"] for seed in (7, 8))
    assert (again.made, len(again.failed)) == (0, 2)
    assert (tmp_path / "out/results.jsonl").read_bytes() == before  # nothing new to say


def test_more_seeds_go_on_too(study: tuple[Path, Finished, list[str]], tmp_path: Path) -> None:
    """The threshold is the mean over more baselines then, so what depends on it is told again."""
    shutil.copytree(study[0] / "out", tmp_path / "out")
    found = run_study(prepared(tmp_path / "out", *EPSILONS, seeds=3), program=PROGRAM)
    assert found.made == 2
    last = {(x["variant"], x["seed"]): x for x in lines(tmp_path / "out")}
    assert {seed for variant, seed in last if variant == "0.01"} == {7, 8, 9}
    assert found.threshold is not None
    for line in (line for line in last.values() if line["status"] == "ok"):
        reached = line["metrics"]["accuracy"] >= found.threshold.value
        assert line["metrics"]["reached_threshold"] == reached


def test_a_given_threshold_goes_before_the_baselines(tmp_path: Path) -> None:
    found = run_study(prepared(tmp_path / "o", 1e-2, seeds=1, threshold=("loss", 0.25)), program=PROGRAM)
    assert found.threshold is not None
    assert (found.threshold.metric, found.threshold.value, found.threshold.source) == ("loss", 0.25, "given")
    # Losses at the five evaluations: 0.431, 0.331, 0.231, ...
    assert named(tmp_path / "o")["baseline", 7]["metrics"]["steps_to_threshold"] == 2.0


@pytest.mark.parametrize(
    ("epsilons", "options", "message"),
    [
        ((1e-3, 2e-2, 0.5), {}, "variants: "),
        (
            EPSILONS,
            {"equal": "steps", "minutes": None, "config": {"num_steps": 5}},
            "num_steps: 4 there, 5 here",
        ),
        (EPSILONS, {"config": {"learning_rate": 0.5}}, "learning_rate: 1e-06 there, 0.5 here"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(
    study: tuple[Path, Finished, list[str]],
    epsilons: tuple[float, ...],
    options: dict[str, Any],
    message: str,
) -> None:
    config = CONFIG.model_copy(update=options.pop("config", {}))
    with pytest.raises(MezoError, match="holds a study with other settings") as caught:
        prepare(plan(*epsilons), config, study[0] / "out", Options(estimate=False, **options))
    assert message in str(caught.value)


def test_a_study_of_an_earlier_version_goes_on(
    study: tuple[Path, Finished, list[str]], tmp_path: Path
) -> None:
    """Which lacked a setting that is at its default now."""
    shutil.copytree(study[0] / "out", tmp_path / "out")
    request = tmp_path / "out" / "study.json"
    found = json.loads(request.read_text())
    del found["asked"]["config"]["granularity_block"]
    request.write_text(json.dumps(found))
    assert {run.config.epsilon for run in prepared(tmp_path / "out", *EPSILONS).left()} == {fake_child.RAISES}


def test_a_child_that_is_killed_is_told_and_the_others_finish(tmp_path: Path) -> None:
    found = run_study(prepared(tmp_path / "o", fake_child.KILLED, 1e-2, seeds=1), program=PROGRAM)
    assert [error.split(" (")[0] for _, error in found.failed] == ["ended by SIGKILL"]
    assert named(tmp_path / "o")["0.01", 7]["status"] == "ok"


def test_an_exception_is_told_by_its_last_line(tmp_path: Path) -> None:
    found = run_study(prepared(tmp_path / "o", fake_child.BROKEN, seeds=1), program=PROGRAM)
    assert [error for _, error in found.failed] == ["RuntimeError: out of memory"]


def test_when_the_baseline_fails_the_others_are_run_without_a_threshold(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epsilon": fake_child.RAISES})
    p = prepare(plan(1e-2), config, tmp_path / "o", Options(seeds=1, estimate=False))
    found = run_study(p, program=PROGRAM)
    assert found.threshold is None
    assert "reached_threshold" not in named(tmp_path / "o")["0.01", 7]["metrics"]


def test_two_at_a_time_share_the_cores(tmp_path: Path) -> None:
    p = prepared(tmp_path / "o", 1e-2, 2e-2, jobs=2)
    assert run_study(p, program=PROGRAM).made == 6
    assert set(started(tmp_path).values()) == {1}
    told = {tuple(line.split()[1:]) for line in (tmp_path / "FAKE_STARTS").read_text().splitlines()}
    assert told == {("cpu", str(max(1, (os.cpu_count() or 1) // 2)))}


def test_devices_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    auto = CONFIG.model_copy(update={"device": "auto"})
    assert slots(auto, None) == ["cuda:0", "cuda:1", "cuda:2"]
    assert slots(auto, 4) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert slots(CONFIG, 2) == ["cpu", "cpu"]
    assert slots(auto.model_copy(update={"engine": "vllm"}), None) == ["auto"]
    assert threads(CONFIG, 1) is None
    assert threads(CONFIG, 10_000) == 1
    assert threads(CONFIG.model_copy(update={"device": "cuda:0"}), 2) is None


def test_two_studies_at_once_in_a_folder_are_refused(tmp_path: Path) -> None:
    p = prepared(tmp_path / "o", 1e-2)
    with (
        StudyFolder(tmp_path / "o").locked(),
        pytest.raises(MezoError, match="is writing in this folder"),
    ):
        run_study(p, program=PROGRAM)
    assert started(tmp_path) == Counter()


def test_preparing_writes_nothing(tmp_path: Path) -> None:
    prepared(tmp_path / "o", 1e-2)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "strict", "message"),
    [
        (
            {"ablated_part": "the moon", "replacement": ["cheese"]},
            False,
            "nothing of the plan can be run: scale, ",
        ),
        ({"replacement": [0.5, "cheese"]}, True, "1 of the plan cannot be run"),
    ],
)
def test_what_cannot_be_bound_is_an_error_with_its_reason(
    tmp_path: Path, change: dict[str, Any], strict: bool, message: str
) -> None:
    with pytest.raises(MezoError, match=message):
        prepare(plan(1e-2, **change), CONFIG, tmp_path, Options(estimate=False, strict=strict))


# ---------------------------------------------------------------- killed


@contextmanager
def driven(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A study in a process of its own."""
    command = [sys.executable, str(fake_study.__file__), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def until(happened: Any, process: subprocess.Popen[str]) -> None:
    while not happened() and process.poll() is None:
        time.sleep(0.005)


def killed_until_done(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill the study at drawn moments, then let it end: every run was made whole exactly once."""
    drawn, folder = random.Random(seed), tmp_path / "o"
    for n in range(kills):
        before = sum(started(tmp_path).values())
        with driven(folder) as process:
            until(lambda before=before: sum(started(tmp_path).values()) > before, process)
            time.sleep(drawn.uniform(0, 0.15))
            process.kill()
        if n % 2:  # what a crash of the machine could leave
            with (folder / "results.jsonl").open("ab") as file:
                file.write(b'{"kind": "run", "st')
    with driven(folder) as process:
        assert process.communicate()[0].split()[1] == "False"
    runs = named(folder)
    assert set(runs) == {(v, s) for v in ("baseline", "0.01", "0.02") for s in (7, 8)}
    assert {line["status"] for line in runs.values()} == {"ok"}
    assert set(started(tmp_path, "FAKE_ENDS").values()) == {1}
    assert sorted(p.name for p in (folder / "runs").iterdir()) == sorted(x["key"] for x in runs.values())


def test_a_killed_study_goes_on_without_repeating_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    killed_until_done(tmp_path, 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_study_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    killed_until_done(tmp_path, 8, seed)


def test_a_killed_study_takes_its_runs_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "60")
    with driven(tmp_path / "o") as process:
        until(lambda: (tmp_path / "FAKE_STARTS").read_text(), process)
        tasks = list(Path(f"/proc/{process.pid}/task").glob("*/children"))
        found = {pid for path in tasks for pid in path.read_text().split()}
        process.kill()
    if not tasks:
        pytest.skip("needs /proc/PID/task/TID/children")
    (child,) = found
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if " Z " in Path(f"/proc/{child}/stat").read_text():
            break  # ended, and nobody has asked how yet
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{child}").exists()


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FAKE_SECONDS", "0.5"
    )  # two more are to come when it is stopped, on a slow machine, too
    with driven(tmp_path / "o") as process:
        until(lambda: sum(started(tmp_path).values()) >= 4, process)  # both baselines have ended by then
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0].split()[1] == "True"
    ended = started(tmp_path, "FAKE_ENDS")
    assert {line["key"] for line in lines(tmp_path / "o")} <= set(ended)
    assert len(lines(tmp_path / "o")) >= 2
    run_study(prepared(tmp_path / "o", 1e-2, 2e-2), program=PROGRAM)
    assert set(started(tmp_path, "FAKE_ENDS").values()) == {1}


def test_the_fake_runs_are_read_as_real_ones(study: tuple[Path, Finished, list[str]]) -> None:
    out = study[0] / "out"
    metrics = read_metrics(RunFolder(out / named(out)["baseline", 7]["run"]).metrics)
    assert isinstance(metrics.steps[0], StepRecord)
    assert isinstance(metrics.evals[0], EvalRecord)


# ---------------------------------------------------------------- the time of a study that has begun


def test_an_estimate_of_a_begun_study_is_from_its_finished_runs(
    study: tuple[Path, Finished, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = study
    monkeypatch.setattr("mezo.ablation.run.costs.Processes", None)  # nothing is started
    again = prepared(folder / "out", *EPSILONS, seeds=3, estimate=True)
    cost = again.agreed.costs[again.cases[0].key]
    assert (cost.step, cost.passes) == (0.25, 2.0)  # those of the runs' files
    assert cost.evaluation == pytest.approx(0.1)
    assert cost.fixed >= 0
    assert {case.key for case in again.cases} == set(again.agreed.costs)
    # a third seed of three settings, and the two runs that failed
    assert len(again.left()) == 5
    assert again.estimate() == pytest.approx(sum(again.seconds(run) or 0 for run in again.left()))
    assert again.timed_by.startswith("from the finished runs")


def test_an_estimate_of_a_study_without_a_finished_run_times_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(tmp_path / "o", 1e-2)
    first.folder.path.mkdir()
    first.folder.agree(first.agreed)
    timed = []
    cost = Cost(step=2.0, fixed=1.0, evaluation=0.0, passes=2.0)
    monkeypatch.setattr(
        "mezo.ablation.run.costs.time_case", lambda case, config: timed.append(case.name) or cost
    )
    again = prepared(tmp_path / "o", 1e-2, estimate=True)
    assert timed == ["baseline"]
    assert again.estimate() == 4 * (1.0 + 4 * 2.0)  # two cases, two seeds, four steps
    assert prepared(tmp_path / "o", 1e-2).estimate() is None
