"""Every number of every command is finite and bounded, and so is every number of a settings file."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mezo.cli import app, main
from mezo.config import MeZOConfig
from mezo.errors import MezoError

WRONG = ("inf", "-inf", "nan", "1e400", "9" * 60, "9" * 4000)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


def numbers(path: tuple[str, ...], command: Any) -> Iterator[str]:
    """Flags, by the type in the signature of what a command calls."""
    for name, parameter in inspect.signature(command.callback).parameters.items():
        if any(kind in str(parameter.annotation) for kind in ("int", "float")):
            yield from (p.opts[0] for p in command.params if p.name == name and p.param_type_name == "option")


CASES = [(path, flag) for path, command in commands(get_command(app)) for flag in numbers(path, command)]
ALL = dict(commands(get_command(app)))


def test_there_are_numbers() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize(
    ("path", "flag"), CASES, ids=lambda part: "-".join(part) if isinstance(part, tuple) else part
)
def test_a_number_that_cannot_be(
    path: tuple[str, ...],
    flag: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    others = [
        p for p in ALL[path].params if p.opts[0] != flag and (p.required or p.param_type_name == "argument")
    ]
    line = [text for p in others for text in ((p.opts[0], "x") if p.param_type_name == "option" else ("x",))]
    for value in WRONG:
        assert main([*path, *line, f"{flag}={value}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("mezo: error: ")
        assert len(said) < 400
    assert list(tmp_path.iterdir()) == []


NUMBERS = [
    name
    for name, field in MeZOConfig.model_fields.items()
    if any(kind in str(field.annotation) for kind in ("int", "float"))
]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_setting_that_cannot_be(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for value in (".inf", "-.inf", ".nan", "1e400", "9" * 60, "9" * 399, "9" * 4000):
        path.write_text(f"{name}: {f'[{value}, 1, 1]' if name == 'split_sizes' else value}\n")
        with pytest.raises(MezoError) as caught:
            MeZOConfig.load(path)
        assert len(str(caught.value)) < 400 + len(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**40, -(10**40)])
def test_an_option_of_an_engine_that_cannot_be(value: Any) -> None:
    with pytest.raises(MezoError, match="finite number of 64 bits"):
        MeZOConfig.build(server_args={"a": {"b": [1, value]}})
