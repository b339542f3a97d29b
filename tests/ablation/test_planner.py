"""`mezo plan`: from a paper to files of a plan, over a real endpoint or on a toy model."""

import json
from pathlib import Path

import pytest
import torch
from tests.ablation.chat_server import Answer, refused, said, serving
from tests.toys import byte_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from mezo.ablation.formats.files import read_plan
from mezo.ablation.planner.plan_paper import PAGE, PLAN, REPLY
from mezo.cli import main
from mezo.util.endpoint import KEY

SECRET = "sk-very-secret-0123456789"

pytest.importorskip("openai")


def study(name: str, part: str, replacement: list[object]) -> dict[str, object]:
    return {
        "name": name,
        "ablated_part": part,
        "action": "REPLACE",
        "replacement": replacement,
        "metrics": ["Accuracy", "Memory (GB)"],
    }


SCALE = study("Scale", "Perturbation scale (epsilon)", [0.01, 0.0001])
COUNT = study("Count", "Number of random vectors (n)", [2, 4])
OTHER = study("Colour", "Colour of the walls of the room", ["green"])


def reply(*studies: object, discussion: str = "Because.") -> str:
    lines = "".join(f"{json.dumps(s)}\n" for s in studies)
    return f"<discussion>\n{discussion}\n</discussion>\n<predictions>\n{lines}</predictions>\n"


GOOD = reply(SCALE, COUNT)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "paper.md"
    path.write_text("# Walks in the Dark\n\nWe walk.\n\n## Method\n\nStep by epsilon.\n")
    return path


def plan(paper: Path, url: str, *more: str) -> int:
    folder = str(paper.parent / "out")
    arguments = ["plan", str(paper), "-n", "3", "--model", "toy", "--base-url", url, "--output", folder]
    return main([*arguments, "--retries", "1", *more])


def nothing_has_the_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed."""
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    for path in folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    return printed.out + printed.err


def test_a_paper_becomes_a_plan(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(said(GOOD)) as server:
        assert plan(paper, server.base_url) == 0
    out = paper.parent / "out"
    assert (out / REPLY).read_text() == GOOD
    found = read_plan(out / PLAN)
    page = read_plan(out / PAGE)
    assert [(s.name, s.replacement) for s in page.studies] == [(s.name, s.replacement) for s in found.studies]
    assert (found.title, found.reasoning) == ("Walks in the Dark", "Because.")
    assert [s.name for s in found.studies] == ["Scale", "Count"]
    assert sorted(path.name for path in out.iterdir()) == sorted([PAGE, PLAN, REPLY])
    (request,) = server.requests
    system, user = request["body"]["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "up to 3" in user["content"]
    assert "Step by epsilon." in user["content"]
    assert "2 variants can be run" in nothing_has_the_secret(paper.parent, capsys)


def test_the_model_is_given_the_settings_and_its_set_is_kept(paper: Path) -> None:
    settings = [{"epsilon": 0.01}, {"epsilon": 0.0001}]
    with serving(said(reply({**SCALE, "set": settings}))) as server:
        assert plan(paper, server.base_url) == 0
    system = server.requests[0]["body"]["messages"][0]["content"]
    assert "epsilon: a number, above 0, at most 1000; default 0.001" in system
    assert "learning_rate: a number, at least 0, at most 1e+40, or auto; default 1e-06" in system
    assert 'tuning: one of full, lora, prefix, head, norms; default "full"' in system
    assert "trust_remote_code" not in system
    assert read_plan(paper.parent / "out" / PLAN).studies[0].set == settings


def test_words_and_set_that_disagree_are_asked_about_and_not_run(
    paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = reply({**SCALE, "set": [{"epsilon": 0.01}, {"epsilon": 0.5}]})
    with serving(said(wrong)) as server:
        assert plan(paper, server.base_url) == 0
    reading = "Scale, 0.0001: the words say epsilon=0.0001, set: says epsilon=0.5"
    assert reading in server.requests[1]["body"]["messages"][3]["content"]
    printed = capsys.readouterr().out
    assert f"not run   {reading.replace('Scale, ', 'Scale: ')}" in printed
    written = str(paper.parent / "out" / PLAN)
    assert main(["ablate", written, "--dry-run", "--output", str(paper.parent / "o")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mezo: error: words and set of the plan say different things: {reading}")
    assert error.count("\n") == 1


BROKEN = {
    "no plan": "I would rather not.",
    "malformed": reply(SCALE)[:-30] + "\n</predictions>",
    "wrong action": reply({**SCALE, "action": "PONDER"}),
    "nothing that can be run": reply(OTHER),
    "a secret": f"my key is {SECRET}",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_is_asked_for_once_more(
    kind: str, paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(BROKEN[kind]), said(GOOD)) as server:
        assert plan(paper, server.base_url) == 0
    first, again = (request["body"]["messages"] for request in server.requests)
    assert again[:2] == first
    assert [message["role"] for message in again[2:]] == ["assistant", "user"]
    assert "could not be used" in again[3]["content"]
    assert len(read_plan(paper.parent / "out" / PLAN).studies) == 2
    kept = (paper.parent / "out" / REPLY).read_text()
    assert GOOD in kept
    assert BROKEN[kind].replace(SECRET, "***") in kept
    assert "answer 1: " in nothing_has_the_secret(paper.parent, capsys)


def test_a_cut_answer_is_asked_for_once_more(paper: Path) -> None:
    with serving(said(GOOD[:-60], "length"), said(GOOD)) as server:
        assert plan(paper, server.base_url) == 0
    assert "cut off" in server.requests[1]["body"]["messages"][3]["content"]


@pytest.mark.parametrize("answer", [said("no"), said(GOOD[:-60], "length")])
def test_twice_broken_is_an_error_that_keeps_the_answers(
    answer: Answer, paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answer) as server:
        assert plan(paper, server.base_url) == 2
    assert len(server.requests) == 2
    assert [path.name for path in (paper.parent / "out").iterdir()] == [REPLY]
    assert "===== answer 2 =====" in (paper.parent / "out" / REPLY).read_text()
    printed = nothing_has_the_secret(paper.parent, capsys)
    assert "mezo: error: no plan in two answers: answer 1: " in printed
    assert "the answers are kept in" in printed


def test_a_plan_of_which_nothing_can_be_run_is_written_and_said_so(
    paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(reply(OTHER))) as server:
        assert plan(paper, server.base_url) == 0
    assert len(server.requests) == 2
    assert read_plan(paper.parent / "out" / PLAN).studies[0].name == "Colour"
    assert "not run   Colour" in capsys.readouterr().out


def test_more_studies_than_asked_for_are_cut_and_said(
    paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(reply(SCALE, COUNT))) as server:
        assert plan(paper, server.base_url, "-n", "1") == 0
    assert [s.name for s in read_plan(paper.parent / "out" / PLAN).studies] == ["Scale"]
    assert "2 studies came, 1 were asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer", [refused(401, f"wrong key {SECRET}"), refused(429, "busy"), refused(500, f"trace: {SECRET}")]
)
def test_an_endpoint_that_refuses_leaves_no_files(
    answer: Answer, paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answer) as server:
        assert plan(paper, server.base_url) == 2
    assert not (paper.parent / "out").exists()
    assert "mezo: error: http://127.0.0.1" in nothing_has_the_secret(paper.parent, capsys)


def test_a_slow_endpoint_is_given_up(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Answer("late", delay=0.3)) as server:
        assert plan(paper, server.base_url, "--timeout", "0.05", "--retries", "0") == 2
    assert "raise --timeout" in capsys.readouterr().err


def test_a_plan_that_is_there_is_kept_and_nobody_asked(
    paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(GOOD)) as server:
        assert plan(paper, server.base_url) == 0
        before = (paper.parent / "out" / PLAN).read_bytes()
        assert plan(paper, server.base_url) == 2
        assert len(server.requests) == 1
        assert "already holds plan.md" in capsys.readouterr().err
        assert plan(paper, server.base_url, "--overwrite") == 0
    assert (paper.parent / "out" / PLAN).read_bytes() == before


def test_a_long_paper_is_cut_to_its_tokens(paper: Path) -> None:
    paper.write_text(
        "# Walks\n\nWe walk.\n\n## Method\n\nStep.\n\n## References\n\n" + "Smith et al. " * 1000
    )
    with serving(said(GOOD)) as server:
        assert plan(paper, server.base_url, "--paper-tokens", "100") == 0
    content = server.requests[0]["body"]["messages"][1]["content"]
    assert "[left out for length: References]" in content
    assert "Smith" not in content


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that writes "aaa...": its last hidden state is always the head's row of that letter."""
    folder = tmp_path_factory.mktemp("toy")
    tokenizer = byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=16384, tie_word_embeddings=False
    )
    model = GPT2LMHeadModel(config)
    row = torch.eye(8)[0]
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(row)
        model.lm_head.weight.zero_()[tokenizer.convert_tokens_to_ids("a")] = row
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def local_plan(paper: Path, model: str, *more: str) -> int:
    folder = str(paper.parent / "out")
    return main(["plan", str(paper), "--model", model, "--output", folder, "--max-tokens", "12", *more])


def test_a_local_model_is_asked_and_its_nonsense_kept(
    local: str, paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It writes no plan: the error is clean, and what it wrote is there."""
    assert local_plan(paper, local) == 2
    assert "no plan in two answers" in capsys.readouterr().err
    kept = (paper.parent / "out" / REPLY).read_text()
    assert kept == f"===== answer 1 =====\n{12 * 'a'}\n===== answer 2 =====\n{12 * 'a'}\n"


def test_a_local_model_sees_as_much_of_a_paper_as_it_has_positions(local: str, paper: Path) -> None:
    """Room is left for the second question too: neither is refused for its length."""
    paper.write_text("# Walks\n\n" + "We walk. " * 5000)
    assert local_plan(paper, local) == 2
    assert "===== answer 2 =====" in (paper.parent / "out" / REPLY).read_text()


def test_a_local_model_that_does_not_exist(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(paper), "--model", "./nowhere", "--output", str(paper.parent / "out")]) == 2
    assert "mezo: error: " in capsys.readouterr().err
    assert not (paper.parent / "out").exists()
