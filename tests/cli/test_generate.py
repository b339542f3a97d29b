"""`mezo generate` and `mezo chat` on a toy run: what they print, and what they refuse."""

import io
import json
from pathlib import Path

import pytest
import torch
from tests.outputs import finished, tiny_chat

from mezo.cli import main
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.reply import _Streamer, prompt_tokens
from mezo.noise.seeds import sampling_key
from mezo.objectives import reward_of
from mezo.optimizers import SGD
from mezo.runs.outputs.finished import FinishedRun
from mezo.runs.outputs.tuned import open_tuned
from mezo.scoring import Example
from mezo.types import THETA
from mezo.util.writing import Writing
from mezo.weights.weights import Weights

OUTPUTS: list[str] = []


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


def test_the_draws_are_those_of_a_run(lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first row of the first step of a run with this seed, at the weights that are there."""
    tuned = open_tuned(str(lora))
    ids = prompt_tokens(tuned.tokenizer, "gab", raw=True)
    example = Example(tuple(ids), ((1,),), 0, key=sampling_key(3, 0, 0))
    writing = Writing(12, ("k",), temperature=1.5, top_p=0.95, top_k=200)
    engine = TransformersEngine(
        tuned.model,
        Weights(tuned.model.named_parameters()),
        reward_of(lambda row, output: OUTPUTS.append(output) or 0.0, "kept"),
        SGD(),
        kind="causal",
        pad_token_id=0,
        probes=False,
        tokenizer=tuned.tokenizer,
        writing=writing,
    )
    engine.losses([example], [THETA])
    how = ("--temperature", "1.5", "--top-p", "0.95", "--top-k", "200", "--seed", "3", "--stop", "k")
    out = said(capsys, "generate", lora, "gab", "--raw", "--max-new-tokens", "12", *how)[1]
    assert out.strip() == OUTPUTS[-1]
    assert OUTPUTS[-1]


def test_an_answer_that_is_begun_and_ends_at_a_stop_string(
    lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--raw", "--max-new-tokens", "8", "--prefill")
    _, begun, err = said(capsys, "generate", lora, "gab", *more, "de")
    assert "cut after 8 tokens" in err
    _, joined, _ = said(capsys, "generate", lora, "gabde", *more, "")
    assert begun == "de" + joined
    stop = joined[2]
    assert stop not in joined[:2]
    _, cut, err = said(capsys, "generate", lora, "gab", *more, "de", "--stop", stop)
    assert (cut, err.count("cut after")) == ("de" + joined[:2] + "\n", 0)


@pytest.mark.parametrize("stop", [("abc",), ("cx", "cab"), ()])
def test_what_may_be_a_stop_string_is_held_back(stop: tuple[str, ...]) -> None:
    told: list[str] = []
    streamer = _Streamer(Letters(), Writing(9, stop), told.append)  # type: ignore[arg-type]
    streamer.put(torch.tensor([[1, 2]]))  # the prompt
    text = "abxabcab"
    for n, letter in enumerate(text):
        streamer.put(torch.tensor([ord(letter)]))
        seen = "".join(told)
        assert Writing(9, stop).cut(text[: n + 1]).startswith(seen)
    streamer.end()
    assert "".join(told) == Writing(9, stop).cut(text)


class Letters:
    """A writer whose tokens are letters."""

    def text(self, tokens: list[int], writing: Writing) -> str:
        return "".join(map(chr, tokens))


def test_a_run_by_rewards_says_where_its_answers_begin_and_end(tmp_path: Path) -> None:
    settings = {"stop": ["k"], "prefill": "so", "model": "m", "tuning": "full"}
    for objective, expected in (
        ({"objective": "length(most=8)"}, (("k",), "so")),
        ({"task": "countdown"}, (("k",), "so")),
        ({}, ((), "")),
        ({"objective": "answer-ce"}, ((), "")),
    ):
        run = tmp_path / "run"
        (run / "model").mkdir(parents=True, exist_ok=True)
        (run / "model" / "config.json").write_text("{}")
        (run / "config.yaml").write_text(json.dumps({**settings, **objective}))
        found = FinishedRun.open(run)
        assert (found.stop, found.prefill) == expected


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
