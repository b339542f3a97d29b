"""A name -> thing table. Adding an estimator, task, ... is one file and one line in its table."""

import ast
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import mezo
from mezo.errors import MezoError, near

T = TypeVar("T")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry called `name`; a MezoError with the near names if it does not exist."""
    if name not in table:
        raise MezoError(f"unknown {what} {name!r}{near(name, table)}")
    return table[name]


def names_in(registry: str) -> tuple[str, ...]:
    """The names in a registry, given as module:NAME of this package.

    A table that is written out is read from its source: some modules import torch, and --help should not wait for
    that.
    """
    module, _, table = registry.partition(":")
    if module in sys.modules:
        return tuple(getattr(sys.modules[module], table))
    place = Path(mezo.__file__).parent.joinpath(*module.split(".")[1:])
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
            names = [str(key.value) for key in keys if isinstance(key, ast.Constant)]
            if names and len(names) == len(keys):
                return tuple(names)
    return tuple(getattr(import_module(module), table))
