"""JSON and YAML of other people's files: plain values in proportion to the text, or ValueError.

The libraries raise many kinds of errors for invalid text (RecursionError, OverflowError, their own), and YAML's
aliases can expand a kilobyte beyond all memory.
"""

import json
import math
import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

MOST_TEXT = 1 << 20  # characters of one YAML text: the reader takes some seconds for as many
MOST_VALUES = 1_000_000  # of one YAML text, aliases written out: no settings, task or plan has a tenth of it


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The values. Raises ValueError, of one line, for invalid JSON or UTF-8, too deep nesting, or a key that occurs
    twice.

    finite: refuse NaN, infinities and numbers beyond a float.
    """
    try:
        if not finite:
            return json.loads(text, object_pairs_hook=once)
        return json.loads(text, object_pairs_hook=once, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises ValueError for a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {one_line(twice):.80} is there twice in an object")
    return found


def parse_yaml(text: str) -> Any:
    """The values of a YAML text: strings, whole numbers, floats, booleans, null, lists and mappings.

    Plain scalars are read by the core schema of YAML 1.2, in decimal alone: `yes`, `1:30`, `0x10` and dates are
    strings. Merge keys (`<<`), other tags and keys that occur twice are refused.

    Raises ValueError, of one line, for invalid YAML, more than MOST_TEXT characters, too deep nesting, an alias
    inside what it names, or more than MOST_VALUES values with its aliases expanded.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"expected at most {MOST_TEXT:,} characters of YAML, found {len(text):,}")
    loader = None
    try:
        loader = _CoreLoader(text)
        return loader.get_single_data()
    except RecursionError:
        raise ValueError("it is nested too deep, or an alias is inside of what it names") from None
    except (yaml.YAMLError, OverflowError, AttributeError, TypeError, LookupError) as error:
        # the loader's constructors raise what Python does for a number or a key that cannot be one
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    finally:
        if loader is not None:
            loader.dispose()


_TAG = "tag:yaml.org,2002:"
_DIGITS = 400  # of a whole number: more than a float can hold
# decimal alone: an octal or hexadecimal number in a file of settings or labels is more often a mistake or an id
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _CoreLoader(yaml.SafeLoader):
    """Builds nothing but plain values, from a text whose size with its aliases written out was counted before."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in {"null", "bool", "int", "float", "str", "seq", "map"}
    }

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {})
        return self.construct_document(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"expected a mapping, found something else{_line(node)}")
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.value == "<<" and key_node.style is None:
                raise ValueError(f"merge keys (<<) are not read{_line(key_node)}: write the values out")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ValueError(f"expected a name as a key, found a list or a mapping{_line(key_node)}")
            if key in found:
                text = ascii(key) if len(ascii(key)) <= 60 else f"{ascii(key)[:57]}..."
                raise ValueError(f"the key {text} occurs twice{_line(key_node)}: leave one of them away")
            found[key] = self.construct_object(value_node, deep=deep)
        return found


class CoreDumper(yaml.SafeDumper):
    """Writes what `parse_yaml` reads to the same values: strings that it would take for something else are quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _form, _first in _CORE:
    for _kind in (_CoreLoader, CoreDumper):
        _kind.add_implicit_resolver(
            _TAG + _name, re.compile(f"(?:{_form})\\Z"), [*_first, *([""] if _name == "null" else [])]
        )


def _whole(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    if len(text) > _DIGITS:
        raise ValueError(f"expected a number of at most {_DIGITS} digits, found {len(text):,}")
    return int(text)


def _float(loader: Any, node: Any) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


# not PyYAML's own, which read 010 as octal and 1:30 in base 60
_CoreLoader.add_constructor(_TAG + "int", _whole)
_CoreLoader.add_constructor(_TAG + "float", _float)


def dump_yaml(values: Any) -> str:
    """Plain values as YAML, in the order of their keys."""
    return yaml.dump(values, Dumper=CoreDumper, sort_keys=False)


def _line(node: Any) -> str:
    return f" (line {node.start_mark.line + 1})" if node.start_mark else ""


def _count_nodes(node: Any, known: dict[int, int | None]) -> int:
    """The number of values of a node with its aliases written out. Raises ValueError above MOST_VALUES, or for a
    node inside itself. known: of the nodes so far; None for those that are being counted."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise ValueError("an alias is inside of what it names")
        return found
    known[id(node)] = None
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for inner in item if isinstance(item, tuple) else (item,):
                total += _count_nodes(inner, known)
                if total > MOST_VALUES:
                    raise ValueError(f"its aliases come to more than {MOST_VALUES:,} values")
    known[id(node)] = total
    return total


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {text:.20}")
    return value


def printable(text: str) -> str:
    """`text` with what a terminal would act upon (escape codes, carriage returns) shown as \\x1b and the like;
    its line ends stay. Half a surrogate pair, which no terminal takes, is shown so too."""
    if text.isprintable():
        return text
    text = text.replace("\t", " ")
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def one_line(text: object) -> str:
    """As `printable`, with all space as single blanks."""
    return printable(" ".join(str(text).split()))
