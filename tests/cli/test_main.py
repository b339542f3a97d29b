"""The commands as a person types them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.cli import toy

import mezo
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.tasks import TASKS
from mezo.util.profiling import NAMES

SOURCES = str(Path(mezo.__file__).parents[1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.model(tmp_path_factory.mktemp("models") / "toy"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy.reviews(tmp_path_factory.mktemp("data") / "reviews"))


def train_arguments(model: str, data: str, output: Path, *more: str) -> list[str]:
    return [
        *("train", "--model", model, "--data", data, "--steps", "3", "--batch-size", "4"),
        *("--learning-rate", "1e-2", "--output", str(output), *more),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCES}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mezo.cli", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# ---------------------------------------------------------------- help


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "eval",
        "tune",
        "replay",
        "plot",
        "tasks",
        "tasks show",
        "baseline",
        "baseline finetune",
    ],
)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"Usage: mezo {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "eval", "replay", "plot"])
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([name, "--help"])
    text = capsys.readouterr().out
    assert f"mezo {name} " in text[text.index("Example") :]


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "Start here" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mezo {mezo.__version__}\n"


def test_help_waits_for_no_heavy_import() -> None:
    heavy = ["torch", "transformers", "numba", "matplotlib", "numpy"]
    code = f"import sys; from mezo.cli import main; main(['train', '--help']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_tasks_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert listed == list(TASKS)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "--epsilom", "1"], "No such option: --epsilom"),
        (["train", "--steps", "many"], "'--steps'"),
        (["train", "--steps", "0"], "num_steps=0: input should be greater than or equal to 1"),
        (["train", "--trace", "-1"], "'--trace'"),
        (["train", "--tuning", "all"], "unknown tuning mode 'all'; did you mean 'full'?"),
        (["train", "--task", "sst3"], "unknown task 'sst3'; did you mean 'sst5' or 'sst2'"),
        (["train", "--config", "none.yaml"], "none.yaml: not a readable YAML config"),
        (["eval", "--model", "smolm2-135m", "--task", "demo"], "did you mean 'smollm2-135m'?"),
        (["replay", "nowhere", "--output", "x"], "nowhere: no such run folder"),
        (["replay"], "Missing argument 'RUN'"),
        (["plot", "nowhere"], "nowhere: no such run folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines()[-1].startswith("mezo: error: ")
    assert words in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_as_a_process() -> None:
    done = command("plot", "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mezo: error: nowhere: no such run folder")
    assert done.stderr.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mezo.cli.tasks.tasks", None)
    monkeypatch.setattr("mezo.tasks.task_for", None)
    with pytest.raises(TypeError):
        main(["tasks"])


# ---------------------------------------------------------------- a run, whole


@pytest.fixture(scope="module")
def run(model: str, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "full"
    assert main(train_arguments(model, data, output, "--eval-every", "1")) == 0
    return output


def test_train_writes_everything(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir()) == [
        "README.md",
        "config.yaml",
        "events.jsonl",
        "metrics.jsonl",
        "model",
        "plots",
        "summary.json",
        "trajectory.mezo",
    ]
    kinds = [json.loads(line)["kind"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["eval", "step", "eval", "step", "eval", "step", "eval"]
    assert MeZOConfig.load(run / "config.yaml").num_steps == 3


def test_train_reports_before_and_after_and_where(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert main(train_arguments(model, data, output)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("accuracy  ") and " % -> " in line for line in lines)
    for name, place in {
        "weights": "model",
        "replay": "trajectory.mezo",
        "plots": "plots",
        "card": "README.md",
    }.items():
        assert f"{name:<9} {output / place}" in lines


def test_a_profile_and_a_trace_on_request(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert main(train_arguments(model, data, output, "--profile", "--trace", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"profile   {output / 'profile.json'}" in lines
    assert f"trace     {output / 'trace.json.gz'}" in lines
    assert (output / "trace.json.gz").is_file()
    table = lines[lines.index("profile    median ms    share   (1 step after the first 2)") + 1 :]
    assert [line[:9].strip() for line in table] == ["a step", *NAMES]
    assert all(line.endswith(" %") for line in table[1:])
    spans = json.loads((output / "profile.json").read_text())["spans"]
    for line, (name, written) in zip(table[1:], spans.items(), strict=True):
        label, median, share, _ = line.split()
        assert label == name
        # both are rounded from the same number: to 0.1 here, to more places there
        assert float(median) == pytest.approx(written["median_ms"], abs=0.0551)
        assert float(share) == pytest.approx(100 * written["share"], abs=0.0551)
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert all(("profile" in line) == (line["kind"] == "step") for line in steps)


@pytest.mark.slow
def test_a_run_is_not_replaced_unless_asked(
    model: str, data: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "trajectory.mezo").read_bytes()
    assert main(train_arguments(model, data, run)) == 2
    assert "already holds a run; choose another --output, or add --overwrite" in capsys.readouterr().err
    assert (run / "trajectory.mezo").read_bytes() == before
    again = tmp_path / "again"
    for overwrite in ([], ["--overwrite"]):
        assert main(train_arguments(model, data, again, *overwrite)) == 0


def test_eval_of_the_tuned_model_agrees_with_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--config", str(run / "config.yaml"), "--model", str(run / "model"), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: measured[name] for name in ("accuracy", "loss", "examples", "split")} == {
        name: last[name] for name in ("accuracy", "loss", "examples", "split")
    }


def test_eval_in_words(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--model", model, "--data", data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sst2 validation, 8 examples, ")
    assert lines[1].startswith("accuracy  ")
    assert lines[2].startswith("loss  ")


def test_replay_makes_the_same_weights(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run), "--output", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"weights   {tmp_path / 'again' / 'model'}"
    ours = load_file(run / "model" / "model.safetensors")
    theirs = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_lora_is_evaluated_through_its_adapter(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lora"
    assert main(train_arguments(model, data, output, "--tuning", "lora")) == 0
    capsys.readouterr()
    config = str(output / "config.yaml")
    assert main(["eval", "--config", config, "--adapter", str(output / "adapter"), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    last = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
    assert measured["loss"] == last["loss"]


def test_plot(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert str(run / "plots" / "overview.png") in printed
    assert all(Path(path).is_file() for path in printed)


def test_plot_of_several_runs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), str(run), "--output", str(tmp_path / "both")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "both.png"), str(tmp_path / "both.svg")]


def test_ctrl_c_saves_everything(model: str, data: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = train_arguments(model, data, output, "--steps", "100000", "--eval-every", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "mezo.cli", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2: "):
            break
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error == ""
    stopped = next(line for line in out.splitlines() if line.startswith("stopped at step "))
    assert stopped.endswith(f", everything saved in {output}")
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert int(stopped.split()[3].rstrip(",")) == sum(line["kind"] == "step" for line in steps)
    assert (output / "model" / "model.safetensors").is_file()
    assert (output / "README.md").is_file()
