"""Classes, functions and objects given in Python, as the names under which another process finds them again."""

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.util.plugin_modules import FILE_MODULE
from mezo.util.plugins import KINDS


def named(setting: str, value: Any, apart: Collection[str] = ()) -> tuple[str, dict[str, Any]]:
    """The name of an entry that is given as itself, and those of its settings that are `apart`, and not in the name.

    A class or a function is module:qualname, an object a variable of its module or its class with its settings. What is
    of this package has its name in the registry, and its settings apart.

    Raises MezoError for what cannot be found again by a name.
    """
    kind = KINDS[setting]
    module, _, attribute = kind.table.partition(":")
    for name, entry in getattr(importlib.import_module(module), attribute).items():
        if entry is value or (type(entry) is type(value) and entry is not None and entry == value):
            return name, {}
        if isinstance(entry, type) and type(value) is entry:
            return name, _settings(setting, value)
    if isinstance(value, type) or inspect.isroutine(value):
        return _place(setting, value, value.__module__, value.__qualname__), {}
    for candidate in _modules(value):
        for variable, found in vars(sys.modules[candidate]).items():
            if found is value:
                return _place(setting, value, candidate, variable), {}
    made = type(value)
    settings = _settings(setting, value)
    given = ", ".join(f"{key}={item!r}" for key, item in settings.items() if key not in apart)
    place = _place(setting, made, made.__module__, made.__qualname__)
    return f"{place}({given})" if given else place, {key: settings[key] for key in settings.keys() & apart}


def _modules(value: Any) -> Iterator[str]:
    """Where a variable may hold the object: the module of its class, and those of functions it is made of."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    for each in (type(value), *(getattr(value, field.name) for field in fields)):
        name = getattr(each, "__module__", None)
        if isinstance(name, str) and name in sys.modules:
            yield name


def _settings(setting: str, value: Any) -> dict[str, Any]:
    """The object's fields that are not its class's defaults. Raises MezoError for one that a text cannot hold."""
    known = inspect.signature(type(value)).parameters
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    # and no __init__ of its own
    if fields and known.keys() == {field.name for field in fields if field.init}:
        given = {
            field.name: getattr(value, field.name)
            for field in fields
            if field.init and not _is_default(field, getattr(value, field.name))
        }
    else:
        lost = [name for name in known if name not in vars(value)]
        if lost or vars(value).keys() - known.keys():
            raise _unnamed(setting, value, "it keeps other fields than its class is made with")
        given = {name: getattr(value, name) for name in known if getattr(value, name) != known[name].default}
    for name, item in given.items():
        try:
            same = ast.literal_eval(repr(item)) == item
        except (ValueError, SyntaxError):
            same = False
        if not same:
            raise _unnamed(setting, value, f"its {name} is no number, text or list of them")
    return given


def _is_default(field: "dataclasses.Field[Any]", value: Any) -> bool:
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    return type(default) is type(value) and default == value


def _place(setting: str, value: Any, module: str, qualname: str) -> str:
    """module:qualname, from which `value` is found again."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not value:
        raise _unnamed(setting, value, "it was made inside of a function or by hand")
    if module == "__main__" or module.startswith(FILE_MODULE):
        main = sys.modules[module]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if module == "__main__" and spec is not None and spec.name != "__main__":
            return f"{spec.name}:{qualname}"
        if file is None or not Path(file).is_file() or not file.endswith(".py"):
            raise _unnamed(setting, value, "it was made in a session")
        path = Path(file).resolve()
        return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{qualname}"
    return f"{module}:{qualname}"


def _unnamed(setting: str, value: Any, why: str) -> MezoError:
    return MezoError(
        f"{setting}={value!r:.200}: {why}, so that resuming and replaying could not find it again: put it into a file "
        f"of its own, and give {setting}='file.py:NAME'"
    )
