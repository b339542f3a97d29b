"""`mezo generate` and `mezo chat` on a toy run: what they print, and what they refuse."""

import io
from pathlib import Path

import pytest
from tests.outputs import finished, tiny_chat

from mezo.cli import main


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("lora"), tuning="lora")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("full"), tuning="full")


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_base_and_tuned_answer_one_after_the_other(
    kind: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(kind)
    code, out, _ = said(capsys, "generate", run, "gab", "--raw", "--max-new-tokens", "8", "--compare")
    assert code == 0
    before, after = out.removeprefix("--- base\n").split("\n--- tuned\n")
    assert said(capsys, "generate", run, "gab", "--raw", "--max-new-tokens", "8")[1] == after
    base = run.parent / "base"
    assert said(capsys, "generate", base, "gab", "--raw", "--max-new-tokens", "8")[1] == before + "\n"
    assert before + "\n" != after


def test_an_adapter_is_given_in_three_ways(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("gab", "--raw", "--max-new-tokens", "8")
    answers = {
        said(capsys, "generate", *where, *more)[1]
        for where in ((lora,), (lora / "adapter",), (lora.parent / "base", "--adapter", lora / "adapter"))
    }
    assert len(answers) == 1


def test_a_seed_draws_the_same_again(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: int) -> str:
        more = ("--raw", "--max-new-tokens", "8", "--temperature", "2", "--seed", str(seed))
        return said(capsys, "generate", lora, "gab", *more)[1]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_prompt_from_standard_input(
    lora: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--raw", "--max-new-tokens", "8")
    monkeypatch.setattr("sys.stdin", io.StringIO("gab\n"))
    assert said(capsys, "generate", lora, "-", *more)[1] == said(capsys, "generate", lora, "gab", *more)[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("generate", "BASE", "x", "--compare"), "nothing to compare with: give a RUN"),
        (("generate", "RUN", "x", "--system", "y"), "a system prompt needs a chat template"),
        (("generate", "RUN", "x", "--dtype", "float8"), "unknown dtype 'float8'"),
        (("generate", "RUN", "x", "--adapter", "RUN/adapter"), "this run has an adapter of its own"),
        (("chat", "RUN"), "give one with --chat-template (chatml, plain or a file)"),
        (("chat", "RUN", "--chat-template", "chatmll"), "unknown chat template 'chatmll'; did you mean 'chatml'"),
        (("generate", "nowhere", "x"), "nowhere"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    arguments: tuple[str, ...],
    expected: str,
    lora: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    real = [a.replace("RUN", str(lora)).replace("BASE", str(lora.parent / "base")) for a in arguments]
    code, out, err = said(capsys, *real)
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("mezo: error: ")
    assert expected in line


def test_a_chat(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path, tuning="lora")
    lines = "hello\n/base\nhello\n/tuned\n/reset\nhello\n\n/what\n/exit\nnot read\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    code, out, err = said(capsys, "chat", run, "--chat-template", "plain", "--max-new-tokens", "4")
    assert code == 0
    assert err.count("cut after 4 tokens") == out.count("\n") == 3
    first, _, third = out.splitlines()
    assert first == third  # after /reset nothing is remembered
    assert "the base model answers from here on" in err
    assert "unknown command /what: /base and /tuned switch the model" in err


def test_a_chat_without_another_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/base\n"))
    code, _, err = said(capsys, "chat", tiny_chat(tmp_path / "model"))
    assert code == 0
    assert "there is no other model" in err
