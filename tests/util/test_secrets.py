"""Keys and passwords reach no file of a run and no line on a terminal."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.resumed import base, config_for, trainer

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.secrets import hidden

SECRET = "hunter2-0123456789"


@pytest.mark.parametrize(
    "settings",
    [
        dict(server=(f"http://user:{SECRET}@host:1",)),
        dict(server=(f"http://{SECRET}@host:1",)),
        dict(server=("http://a:1", f"https://user:{SECRET}@[::1")),
        dict(server_args={"api_key": SECRET}),
        dict(server_args={"api-key": SECRET}),
        dict(server_args={"hf_token": SECRET}),
        dict(server_args={"env": {"AWS_SECRET": SECRET}}),
        dict(server_args={"proxies": [f"http://me:{SECRET}@proxy"]}),
        dict(server_args={"auth": [SECRET]}),
    ],
)
def test_settings_that_hold_a_secret_are_refused_unshown(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MezoError, match="settings are saved with a run") as caught:
        MeZOConfig.build(**settings)
    assert SECRET not in str(caught.value)
    flags = [f"--server={','.join(settings.get('server', ()))}"] if "server" in settings else []
    if "server_args" in settings:
        import json

        flags = [f"--server-args={json.dumps(settings['server_args'])}"]
    assert main(["train", "--output", str(tmp_path / "run"), *flags]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"max_total_tokens": 9, "tokenizer_path": "a", "ssl_keyfile": "b", "speculative_token_map": "c"},
        {"hf_token": True, "api_key": "", "key": None},
        {"model_there": "s3://bucket/model@2"},
    ],
)
def test_other_options_are_none(options: dict[str, Any]) -> None:
    assert MeZOConfig.build(server_args=options).server_args == options


NAMES = (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "MEZO_API_KEY",
    "WANDB_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "MY_PASSWORD",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_library_says_is_blotted_out(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, SECRET)
    assert main(["plot", f"./no-such-{SECRET}"]) == 2
    said = capsys.readouterr()
    assert "no-such-***" in said.err
    assert SECRET not in said.out + said.err


@given(st.text(), st.text())
def test_all_else_stays(before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_TOKEN", SECRET)
        patch.setenv("SHORT_KEY", "a")
        assert hidden(f"{before}{SECRET}{after}").count(SECRET) == 0
        assert hidden(before) == before or SECRET in before


def test_no_file_of_a_run_holds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    monkeypatch.setattr(
        "mezo.training.artifacts.write_plots", lambda run: None
    )  # seconds, and nothing but curves
    config = config_for(base(tmp_path / "base"), num_steps=2)
    trainer(config, output=tmp_path / "run", artifacts=True).train()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"config.yaml", "README.md", "summary.json", "events.jsonl"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {SECRET}.", "key ***."),
        (f"key {SECRET[:12]}", "key ***"),
        (f"key {SECRET[3:]} and {SECRET[:8]}", "key *** and ***"),
        (SECRET.upper(), "***"),
        (SECRET[:7], SECRET[:7]),
        (f"{SECRET[:9]}\n{SECRET[9:]}", "***\n***"),
        ("İ" + SECRET, "İ***"),
    ],
)
def test_pieces_of_a_key_are_hidden(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    assert hidden(text) == shown
    monkeypatch.delenv("SOME_API_KEY")
    assert hidden(text) == text
    assert hidden(text, SECRET, None, "") == shown


def test_the_path_of_a_key_file_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_KEY_FILE", str(tmp_path))
    assert hidden(f"{tmp_path}/run") == f"{tmp_path}/run"
