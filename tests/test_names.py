"""Names that mean something to a path, a terminal, a page or a format stay names, wherever they are shown."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.test_card import card

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.escaping import code_block, code_span
from mezo.util.parsing import MOST_VALUES, one_line, parse_json, parse_yaml, printable

HOSTILE = (
    "<script>alert(1)</script>", "| md |", "[bold]x[/bold]", "\x1b[31mred", "a\nb", "a\r\nb: c", "../../x", "a/b", "\\",
    "`", "```", "---", "' OR", '"', "{{7*7}}", "\u202eabc", "\udcff", "x" * 5000, "=1+1", "%s", "é",
)  # fmt: skip


@given(st.text())
def test_nothing_is_left_that_a_terminal_would_act_upon(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert shown.encode().decode() == shown  # no half of a surrogate pair
    assert "\n" not in one_line(text)
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_card_of_a_hostile_name(name: str, tmp_path: Path) -> None:
    text = card(tmp_path / "run", model=name, task=name, data=name)
    assert all(c.isprintable() or c == "\n" for c in text)
    _, front, rest = text.split("---\n", 2)
    assert set(yaml.safe_load(front)) <= {"library_name", "base_model", "tags"}
    assert yaml.safe_load(front)["tags"][-1] == name
    assert rest.startswith("\n# ")
    assert all(c.isprintable() or c == "\n" for c in code_span(name) + code_block([name]))


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name], ids=ascii)
@pytest.mark.parametrize("option", ["--model", "--task", "--data", "--adapter"])
def test_an_error_about_a_hostile_name_is_one_plain_line(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if option == "--model" and name == "../../x":
        pytest.skip("may be there")
    assert main(["eval", option, f"./none-{name}", "--split", "test", "--task", "no-such-task"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("mezo: error: ")
    assert line.isprintable()


@pytest.mark.parametrize("option", ["--model", "--task", "--data", "--adapter"])
def test_the_home_of_nobody_is_no_folder(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["eval", "--split", "test", "--model", "none/none", "--task", "demo", option, "~nobody-here/x"])
        == 2
    )
    line = capsys.readouterr().err.splitlines()[-1]  # after what the hub's library may say
    assert line.startswith("mezo: error: ")


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    """Nine lists of nine of the one before: 400 MB written out, and a repr of it in an error."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    text = "\n".join([*lines, "model: *a8"])
    with pytest.raises(ValueError, match=f"more than {MOST_VALUES:,} values"):
        parse_yaml(text)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(MezoError, match="not a readable YAML config: its aliases come to"):
        MeZOConfig.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "&a [*a]",
        "[" * 5000,
        "!!int x",
        "!!python/name:os.system",
        "a: b: c",
        "? [a]\n: b",
        "!!float x",
    ],
)
def test_yaml_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[1,", b"\xff\xff"])
def test_json_that_is_none(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999"])
def test_numbers_that_json_has_not(text: str) -> None:
    parse_json(text)
    with pytest.raises(ValueError, match="finite"):
        parse_json(text, finite=True)
