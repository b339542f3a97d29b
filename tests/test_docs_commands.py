"""Command lines in the documentation are command lines: their commands, options and values exist."""

from functools import reduce
from typing import Any

import pytest
from tests.pages import Page, check_value, is_placeholder, pages, words
from tools import reference
from typer.main import get_command

from mezo.cli import app
from mezo.cli.options import WORDS, _parsed
from mezo.errors import MezoError
from mezo.registry import look_up

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)


def options_of(command: Any) -> dict[str, Any]:
    return {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts) if flag.startswith("-")}


ALL_OPTIONS = reduce(
    lambda found, pair: {**options_of(pair[1]), **found}, reference.walk(get_command(app), ("mezo",)), {}
)


def check_command(line: list[str]) -> None:
    """Raises MezoError for anything that the command line would not take. one|another: both are tried."""
    command, rest = get_command(app), line[1:]
    while subcommands := getattr(command, "commands", {}):
        first, *others = rest[0].split("|") if rest else [""]
        for other in others:
            look_up(subcommands, other, "command")
        if first not in subcommands:
            break
        command, rest = subcommands[first], rest[1:]
    takes = any(p.param_type_name == "argument" for p in command.params)
    check_options(rest, options_of(command), takes_arguments=takes)


def check_options(rest: list[str], options: dict[str, Any], *, takes_arguments: bool = False) -> None:
    while rest:
        word, *rest = rest
        if not word.startswith("-"):
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
        if value and option.name in WORDS and option.rich_help_panel:
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
        "mezo bench step --epsilon 1",
        "mezo tasks list",
    ],
)
def test_a_wrong_command_line_is_seen(line: str) -> None:
    with pytest.raises(MezoError):
        check_command(words(line))
