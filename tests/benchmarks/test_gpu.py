"""`python -m benchmarks gpu`: its parts run on the CPU, and no part takes the others with it."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.gpu_child import Settings
from benchmarks.gpu_figures import MARK, Figure, table

from benchmarks import gpu, gpu_child

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # which a script's `main` sets


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no CUDA GPU")
def test_without_a_gpu_it_ends_in_one_line(capsys: Capture, tmp_path: Path) -> None:
    assert main(["gpu", "--json", str(tmp_path / "out.json")]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("python -m benchmarks gpu: needs a CUDA GPU, and torch ")
    assert not (tmp_path / "out.json").exists()


def test_packages_that_are_missing_are_named_at_once(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "NEEDED", ("json", "no_such_package", "nor_this"))
    assert main(["gpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "missing: no_such_package, nor_this" in line


def measured(capsys: Capture, out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = main(["gpu", "--dry", "--json", str(out), *arguments])
    return status, json.loads(out.read_text()), capsys.readouterr().out


def test_a_part_alone(capsys: Capture, tmp_path: Path) -> None:
    status, found, printed = measured(capsys, tmp_path / "out.json", "--part", "noise", "--minutes", "5")
    assert status == 0
    assert list(found["parts"]) == ["noise"]
    names = {figure["name"] for figure in found["parts"]["noise"]["figures"]}
    assert {"update-matched, share of bandwidth", "pair, G elements/s", "update over bare"} <= names
    assert "| noise | bfloat16, gaussian | bare pass, GB/s |" in printed
    assert "no figure above says anything of a GPU" in printed


@pytest.mark.slow
def test_every_part_runs_dry(capsys: Capture, tmp_path: Path) -> None:
    status, found, printed = measured(capsys, tmp_path / "out.json", "--minutes", "20")
    assert status == 0
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(gpu.PARTS, "done")
    aims = [f for part in found["parts"].values() for f in part["figures"] if Figure(**f).met is not None]
    assert len(aims) == 8, "bits of four kinds, tests, two runs, the replay"
    assert all(Figure(**figure).met for figure in aims), "equal bits are equal on a CPU, too"
    for figure in ("peak / inference", "step / two bare passes", "launches", "equal bytes to the replay"):
        assert f"| {figure} |" in printed
    assert "| tiny on transformers, a LoRA step | slopes apart | 0 |" in printed


# ------------------------------------------------------------------ parts that go wrong

CHILDREN = {
    "kernels": "raise RuntimeError('two words')",
    "noise": "import time; say(1.0); time.sleep(60)",
    "steps": "say(2.0); say(3.0)",
    "profile": "print('left out: not here')",
}


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[str, Mapping[str, Any]], list[str]] = gpu._child
    begin = "from benchmarks.gpu_figures import Figure\ndef say(x): Figure('w', 'f', x, at_most=2.5).say()\n"

    def child(name: str, settings: Mapping[str, Any]) -> list[str]:
        code = CHILDREN.get(name)
        return real(name, settings) if code is None else [sys.executable, "-c", begin + code]

    monkeypatch.setattr(gpu, "_child", child)


@pytest.mark.usefixtures("children")
def test_a_part_that_fails_or_hangs_leaves_the_rest(capsys: Capture, tmp_path: Path) -> None:
    chosen = [word for name in CHILDREN for word in ("--part", name)]
    status, found, printed = measured(capsys, tmp_path / "out.json", "--minutes", "0.3", *chosen)
    assert status == 1
    parts = found["parts"]
    assert (parts["kernels"]["status"], parts["kernels"]["reason"]) == ("failed", "RuntimeError: two words")
    assert parts["noise"]["status"] == "out of time"
    assert [figure["value"] for figure in parts["noise"]["figures"]] == [1.0], "what it said before is kept"
    assert [figure["value"] for figure in parts["steps"]["figures"]] == [2.0, 3.0]
    assert (parts["profile"]["status"], parts["profile"]["reason"]) == ("left out", "not here")
    assert "| steps | w | f | 3 | 2.5 or less | missed |" in printed
    assert "| kernels | failed |  | RuntimeError: two words |  |  |" in printed
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


def test_figures_go_through_a_line_whole(capsys: Capture) -> None:
    figure = Figure("what", "ratio", 1.25, 1.0, 2.0, at_least=0.6)
    figure.say()
    line = capsys.readouterr().out
    assert line.startswith(MARK)
    assert Figure.heard(line) == figure
    assert Figure.heard("12 passed") is None


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("w", "f", 1.1, at_most=1.1), True),
        (Figure("w", "f", 1.2, at_most=1.1), False),
        (Figure("w", "f", 1.0, at_most=0.0), False),
        (Figure("w", "f", 0.0, at_most=0.0), True),
        (Figure("w", "f", 0.0, at_least=1.0), False),
        (Figure("w", "f", None, at_least=1.0, why="no room"), False),
        (Figure("w", "f", 3.0), None),
    ],
)
def test_aims(figure: Figure, met: bool | None) -> None:
    assert figure.met is met
    part = {
        "status": "done",
        "reason": "",
        "figures": [{name: getattr(figure, name) for name in figure.__slots__}],
    }
    assert (
        table({"p": part}).splitlines()[2].endswith({None: "|  |", True: "| met |", False: "| missed |"}[met])
    )


def test_a_kernel_with_other_bits_is_seen(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_child, "_tests", lambda settings: None)
    drawn = torch.zeros
    turn: list[int] = []

    def zeros(*shape: Any, **options: Any) -> torch.Tensor:  # of the vector: another one the third time
        turn.append(1)
        return drawn(*shape, **options).add_(float(len(turn) == 3))

    monkeypatch.setattr(torch, "zeros", zeros)
    gpu_child.kernels(Settings(dry=True))
    lines: Sequence[str] = capsys.readouterr().out.splitlines()
    values = [figure.value for line in lines if (figure := Figure.heard(line)) is not None]
    assert values == [0.0, 1.0, 1.0, 1.0]
