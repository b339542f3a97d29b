"""Command lines in the documentation are command lines: their commands, options and values exist."""

import re
from functools import reduce
from typing import Any

import pytest
from benchmarks.__main__ import PROGRAM, SCRIPTS, commands
from tests.pages import ROOT, Page, check_value, is_placeholder, pages, words
from tools import reference
from typer.main import get_command

from mezo.cli import app
from mezo.cli.options import SETTINGS, _parsed
from mezo.errors import MezoError
from mezo.util.registry import look_up

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)


def options_of(command: Any) -> dict[str, Any]:
    return {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts) if flag.startswith("-")}


MEZO, BENCHMARKS = get_command(app), get_command(commands())
ALL_OPTIONS = reduce(
    lambda found, pair: {**options_of(pair[1]), **found},
    [*reference.walk(MEZO, ("mezo",)), *reference.walk(BENCHMARKS, (PROGRAM,))],
    {},
)


def check_command(line: list[str]) -> None:
    """Raises MezoError for anything that the command line would not take. one|another: both are tried."""
    ours = len(PROGRAM.split())
    command, rest = (BENCHMARKS, line[ours:]) if line[:ours] == PROGRAM.split() else (MEZO, line[1:])
    if command is BENCHMARKS and rest and rest[0] in SCRIPTS:
        check_script(*rest)
        return
    while subcommands := getattr(command, "commands", {}):
        first, *others = rest[0].split("|") if rest else [""]
        for other in others:
            look_up(subcommands, other, "command")
        if first not in subcommands:
            break
        command, rest = subcommands[first], rest[1:]
    takes = any(p.param_type_name == "argument" for p in command.params)
    check_options(rest, options_of(command), takes_arguments=takes)


def check_script(name: str, *rest: str) -> None:
    """A script of benchmarks/: its options are in its text, and what follows `--` goes to `mezo train`."""
    text = (ROOT / "benchmarks" / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    options = {flag: flag for flag in re.findall(r"\"(--[a-z-]+)\"", text)}
    own, separator, settings = " ".join(rest).partition(" -- ")
    for word in own.split():
        if word.startswith("-"):
            look_up(options, word.partition("=")[0], "option")
    if separator:
        check_command(["mezo", "train", *settings.split()])


def check_options(rest: list[str], options: dict[str, Any], *, takes_arguments: bool = False) -> None:
    while rest:
        word, *rest = rest
        if not word.startswith("-") or (word == "-" and takes_arguments):  # "-": standard input
            if not takes_arguments and not is_placeholder(word):
                raise MezoError(f"{word!r} is neither a command nor an option")
            continue
        flag, given, value = word.partition("=")
        if flag == "--help":
            continue
        option = look_up(options, flag, "option")
        if option.is_flag:
            continue
        if not given and rest:
            value, *rest = rest
        if value.startswith("--"):
            raise MezoError(f"{flag} has no value")
        if value and option.name in SETTINGS and option.rich_help_panel:
            check_value(option.name, _parsed(option.name, value))


@PAGES
def test_every_command_line_is_one(page: Page) -> None:
    wrong = []
    for line in page.commands():
        try:
            check_command(line)
        except MezoError as error:
            wrong.append(f"{' '.join(line)}: {error}")
    assert wrong == []


@PAGES
def test_every_option_in_running_text_is_one(page: Page) -> None:
    wrong = []
    for code in page.inline():
        if code.startswith("--"):
            try:
                check_options(words(code), ALL_OPTIONS)
            except MezoError as error:
                wrong.append(f"{code}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "mezo trian",
        "mezo train --learning-rat 1e-3",
        "mezo train --tuning loro",
        "mezo train --steps 0",
        "mezo train --estimator two_point",
        "mezo train --task sst3",
        "mezo train --objective acuracy",
        "mezo train --task --steps 5",
        "mezo train runs/first",
        "mezo bench step",
        "python -m benchmarks step --epsilon 1",
        "python -m benchmarks stepp",
        "python -m benchmarks soak --death 1",
        "python -m benchmarks engines-agree --engine sglang -- --tuning loro",
        "mezo tasks list",
    ],
)
def test_a_wrong_command_line_is_seen(line: str) -> None:
    with pytest.raises(MezoError):
        check_command(words(line))
