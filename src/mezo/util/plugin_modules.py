"""Modules of plugins: imported by name or from a file, and the digest of their source."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from mezo.errors import MezoError, near
from mezo.util.foreign import read_text

FILE_MODULE = "mezo_plugin_"  # how the names of modules begin that are made of a file


def module_named(where: str, name: str) -> ModuleType:
    """The module, found from the working directory on, or the file.py. where: what is wanted, for the MezoError if it fails."""
    try:
        if name.endswith(".py"):
            return _from_file(Path(os.path.expanduser(name)))
        main = sys.modules["__main__"]
        if getattr(getattr(main, "__spec__", None), "name", None) == name:
            return main
        with _working_directory_first():
            return importlib.import_module(name)
    except MezoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        place = "" if name.endswith(".py") else f" from {Path.cwd()} or the installed packages"
        raise MezoError(
            f"{where}: cannot import {name!r}{place}: {type(error).__name__}: {reason}"
        ) from error


def _from_file(path: Path) -> ModuleType:
    """A file as a module, anew where its content changed. The program that runs is not imported a second time."""
    main = sys.modules["__main__"]
    if (running := getattr(main, "__file__", None)) and Path(running).resolve() == path.resolve():
        return main
    text = read_text(path)
    name = FILE_MODULE + blake2b((str(path.resolve()) + text).encode(), digest_size=8).hexdigest()
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """An installed command does not look for modules where it is started; a person expects it to."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def attribute_of(where: str, module: ModuleType, path: str) -> Any:
    """What is called `path`, names with dots between them, in a module. Raises MezoError if there is nothing."""
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            own = [n for n, value in vars(found).items() if callable(value) and not n.startswith("_")]
            raise MezoError(f"{where}: {module.__name__} has no {part!r}{near(part, own)}")
        found = getattr(found, part)
    return found


_digests: "WeakKeyDictionary[ModuleType, str]" = WeakKeyDictionary()


def source_digest(found: Any, module: ModuleType) -> str:
    """Of the source of what runs: the named module, and the modules of the object's classes that are not of this package.

    A module's is taken when it is first asked for, since the code that runs does not change with the file.
    """
    kind = found if isinstance(found, type) or inspect.isroutine(found) else type(found)
    names = [each.__module__ for each in (kind.__mro__ if isinstance(kind, type) else (kind,))]
    others = [
        sys.modules[name]
        for name in names
        if name in sys.modules and name.partition(".")[0] not in {"mezo", *sys.stdlib_module_names}
    ]
    digests = sorted({_digest_of(each) for each in (module, *others)})
    return digests[0] if len(digests) == 1 else blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def _digest_of(module: ModuleType) -> str:
    if module not in _digests:
        file = getattr(module, "__file__", None)
        source = Path(file).read_bytes() if file else module.__name__.encode()
        _digests[module] = blake2b(source, digest_size=16).hexdigest()
    return _digests[module]
