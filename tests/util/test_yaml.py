"""YAML: the core schema and no more, read in time and memory in proportion to its text."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mezo.util.parsing import MOST_TEXT, dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("Off", "Off"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("010", 10),
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("=", "="),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' occurs twice .line 3."),
        ("x: {b: 1, 'b': 2}", "the key 'b' occurs twice"),
        ("a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge keys"),
        ("a: &a [*a]", "alias is inside"),
        ("? [1]\n: 2", "as a key"),
        ("a: !!python/name:os.system", "python/name"),
        ("a: !!binary aGk=", "binary"),
        ("a: !!set {b}", "set"),
        ("a: " + "9" * 3000, "400 digits"),
        ("[" * 5000, "nested too deep"),
        ("a: 1\n---\nb: 2", "single document"),
        ("x" * (MOST_TEXT + 1), "at most"),
    ],
)
def test_what_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", ["[{}]", "{{a: [{}]}}"])
def test_aliases_are_counted_before_they_are_written_out(item: str) -> None:
    names = "abcdefghijklmnop"
    lines = ["a: &a [1, 1]"]
    for before, name in zip(names, names[1:], strict=False):
        lines.append(f"{name}: &{name} {item.format(', '.join([f'*{before}'] * 9))}")
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        parse_yaml("\n".join(lines))
    assert parse_yaml("a: &a [1, 1]\nb: [*a, *a]") == {"a": [1, 1], "b": [[1, 1], [1, 1]]}


_PLAIN = st.sampled_from(
    ["yes", "1e5", "1:30", "0x10", "010", "~", "null", "<<", "=", ".inf", "12", "true", ""]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | _PLAIN
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_PLAIN | st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_what_is_written_is_read_to_the_same_values(value: Any) -> None:
    text = dump_yaml(value)
    assert parse_yaml(text) == value
    yaml.safe_load(text)
