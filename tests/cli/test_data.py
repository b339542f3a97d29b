"""`mezo data show`: rows as a run reads them, and token by token with those that are learned in brackets."""

import json
from pathlib import Path

import pytest
from tests.cli import toy
from tests.toys import byte_tokenizer
from transformers import BertConfig

from mezo.cli import main

TALK = [
    {"role": "user", "content": "gab [bold]x[/bold]"},
    {"role": "assistant", "content": "hat"},
    {"role": "user", "content": "gig"},
    {"role": "assistant", "content": "hub"},
]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": TALK}) + "\n")
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["data", "show", *arguments]) == 0
    return capsys.readouterr().out


def test_a_conversation_with_a_star_at_what_is_learned(
    chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "--data", str(chat), "--turns", "last")
    assert text.splitlines() == [
        "reading rows of `messages` as task 'chat'; 1 rows",
        f"--- {chat}:1",
        "  user: gab [bold]x[/bold]",
        "  assistant: hat",
        "  user: gig",
        "* assistant: hub",
    ]


def test_tokens_that_are_learned_are_in_brackets(chat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy.model(chat.parent / "model")
    arguments = ("--data", str(chat), "--model", str(model), "--chat-template", "plain")
    text = shown(capsys, *arguments)
    assert "learned (in brackets)" in text
    joined = text.partition("\n--- ")[2].replace("|", "")
    assert "Assistant:[ hat↵\n]User: gig↵\nAssistant:[ hub↵\n</s>]" in joined
    last = shown(capsys, *arguments, "--turns", "last", "--no-append-eos")
    assert "Assistant: hat↵\nUser: gig↵\nAssistant:[ hub↵\n]" in last.replace("|", "")


def test_a_completion_on_a_masked_model_stands_in_the_place_of_its_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    byte_tokenizer().save_pretrained(model)
    BertConfig(architectures=["BertForMaskedLM"], num_hidden_layers=1).save_pretrained(model)
    (model / "model.safetensors").touch()  # weights are not read
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nwhat?, abc\n")
    text = shown(capsys, "--data", str(path), "--model", str(model)).replace("|", "")
    assert "what? [ abc]" in text


def test_what_is_no_form_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("body,team\na,b\n")
    assert main(["data", "show", "--data", str(path)]) == 2
    said = capsys.readouterr().err
    assert "expected rows of one of these forms" in said
    assert said.count("\n") == 1
