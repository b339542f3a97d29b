"""Entries of registries from outside of this package: how one is named, found, allowed and recorded.

A plugin is named `module:name`, `file.py:name`, or by an entry point of an installed package; `name(setting=value)` gives
it settings. To import it runs its code, so a module or a file is imported only where this program's user names it: as a
setting (`MeZOConfig` calls `trust`) or by --plugin (`allowing`). That a trajectory, a RUN or a file of settings names it is
not enough. An entry point is the word of a package that its user installed for this, and needs no other.
"""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from mezo.errors import MezoError, near
from mezo.util.plugin_modules import attribute_of, module_named, source_digest
from mezo.util.registry import names_in
from mezo.util.weighted_names import weighted

T = TypeVar("T")


@dataclass(frozen=True)
class PluginKind:
    """A registry that plugins extend."""

    what: str  # in messages
    group: str  # of entry points
    table: str  # of the entries in this package
    base: str | None = None  # what an entry is or derives from; None: any function
    functions: bool = False  # whether a function will do as well
    replayed: bool = False  # whether the weights that a trajectory replays to depend on it


# By the setting that names an entry.
KINDS = {
    "estimator": PluginKind(
        "estimator",
        "mezo.estimators",
        "mezo.estimators:ESTIMATORS",
        "mezo.estimators.base:Estimator",
        replayed=True,
    ),
    "optimizer": PluginKind(
        "optimizer",
        "mezo.optimizers",
        "mezo.optimizers:OPTIMIZERS",
        "mezo.optimizers.base:Optimizer",
        replayed=True,
    ),
    "objective": PluginKind(
        "objective",
        "mezo.objectives",
        "mezo.objectives:OBJECTIVES",
        "mezo.objectives.base:Objective",
        functions=True,
    ),
    "task": PluginKind("task", "mezo.tasks", "mezo.tasks:TASKS", "mezo.tasks.base:Task"),
    "metrics": PluginKind("metric", "mezo.metrics", "mezo.metrics:METRICS", "mezo.metrics.base:Metric"),
    "tuning": PluginKind("tuning mode", "mezo.tuning", "mezo.tuning:TUNING", replayed=True),
    "data_format": PluginKind("data format", "mezo.formats", "mezo.data.formats:FORMATS"),
    "engine": PluginKind("engine", "mezo.engines", "mezo.engines.registry:ENGINES"),
}
REPLAYED = tuple(setting for setting, kind in KINDS.items() if kind.replayed)


@dataclass(frozen=True)
class Plugin:
    """What a name stands for."""

    found: Any
    settings: dict[str, Any]
    place: str  # module:name, also of an entry point
    package: str | None  # "name version" of an entry point's
    digest: str  # of the source files of the module and of what it takes from others of its author

    def record(self) -> dict[str, Any]:
        """As JSON values, for a trajectory's header."""
        return {"object": self.place, "source": self.digest} | (
            {} if self.package is None else {"package": self.package}
        )


# ---------------------------------------------------------------- names


def split(name: str) -> tuple[str, dict[str, Any]]:
    """`module:name` and the settings in `module:name(setting=value, ...)`. Raises MezoError if they cannot be read."""
    base, opened, rest = name.partition("(")
    if not opened:
        return name, {}
    problem = MezoError(
        f"{name!r:.200}: expected NAME(setting=value, ...) with values that are numbers, texts, or lists of them"
    )
    if not rest.endswith(")") or len(name) > 10_000:
        raise problem
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise problem
        return base, {str(each.arg): ast.literal_eval(each.value) for each in call.keywords if each.arg}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise problem from None


def each_name(value: Any) -> list[str]:
    """The names in a setting's value: of a list each, of a sum with weights each term's."""
    names = value if isinstance(value, list | tuple) else [value]
    return [each for name in names for each in [term for _, term in weighted(str(name))] or [str(name)]]


def is_import(setting: str, value: Any) -> bool:
    """Whether a setting's value names a module or a file, which is imported and so run."""
    if setting not in KINDS or value is None:
        return False
    if isinstance(value, list | tuple) or weighted(str(value)):
        return any(is_import(setting, each) for each in each_name(value))
    base = str(value).partition("(")[0]
    if setting == "objective" and base.startswith("rouge:"):
        return False
    return ":" in base and not (setting == "task" and base.endswith((".yaml", ".yml")))


def names_of(settings: Mapping[str, Any], kinds: Iterable[str] = tuple(KINDS)) -> Iterator[tuple[str, str]]:
    """(setting, name) of every plugin that the settings of a run name."""
    for setting in kinds:
        value = settings.get(setting)
        for name in [] if value is None else each_name(value):
            if is_import(setting, name) or _is_installed(setting, name):
                yield setting, name


def names_in_use(
    settings: Mapping[str, Any], kinds: Iterable[str], recorded: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """As `names_of`, and also names that a run recorded as a plugin's, whatever is installed here."""
    for setting in kinds:
        value = settings.get(setting)
        for name in [] if value is None else each_name(value):
            if f"{setting} {name.partition('(')[0]}" in recorded or [*names_of({setting: name}, [setting])]:
                yield setting, name


def _is_installed(setting: str, name: str) -> bool:
    base = name.partition("(")[0]
    return base in installed(setting) and base not in names_in(KINDS[setting].table)


def choices(setting: str) -> tuple[str, ...]:
    """The names of a registry: this package's, and those of installed packages."""
    own = names_in(KINDS[setting].table)
    return (*own, *(name for name in installed(setting) if name not in own))


@cache
def installed(setting: str) -> dict[str, EntryPoint]:
    """The entry points of installed packages, by name."""
    return {point.name: point for point in sorted(entry_points(group=KINDS[setting].group))}


# ---------------------------------------------------------------- what may be imported

_trusted: set[str] = set()
_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


def trust(setting: str, value: Any) -> None:
    """Let what the value names be imported from now on: for values that this program's user gives, and never a file."""
    for name in [] if value is None else each_name(value):
        if is_import(setting, name):
            _trusted.add(name.partition("(")[0])


@contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Let files name these plugins, which the user names, too. Raises MezoError for what is no name of one."""
    for name in names:
        if ":" not in name:
            raise MezoError(f"plugin {name!r}: expected module:name or file.py:name")
    before = _allowed.set(_allowed.get() | {name.partition("(")[0] for name in names})
    try:
        yield
    finally:
        _allowed.reset(before)


def is_allowed(value: Any) -> bool:
    """Whether a file may name all that is in the value: see `allowing`."""
    return all(name.partition("(")[0] in _allowed.get() for name in each_name(value) if ":" in name)


# ---------------------------------------------------------------- finding


def find(setting: str, name: str, table: Mapping[str, T]) -> tuple[T, dict[str, Any]]:
    """The entry called `name`, of this package's `table` or a plugin, and the settings that the name gives it.

    Raises MezoError if it does not exist, if it is not of the registry's kind, or if nobody but a file names it.
    """
    if name in table:
        return table[name], {}
    base = name.partition("(")[0]
    if not is_import(setting, base) and base not in installed(setting):
        raise MezoError(f"unknown {KINDS[setting].what} {name!r}{near(name, [*table, *installed(setting)])}")
    plugin = load(setting, name)
    return plugin.found, plugin.settings


def load(setting: str, name: str) -> Plugin:
    """The plugin called `name`. Raises MezoError as `find` does."""
    kind, (base, settings) = KINDS[setting], split(name)
    where = f"{kind.what} {base!r}"
    if is_import(setting, base):
        place, package = base, None
        if base not in _trusted and not is_allowed(base):
            raise MezoError(
                f"{where} is Python code that a file names; it was not run: if you trust it, give --plugin {base} "
                "(from Python, plugins=) yourself"
            )
    else:
        if base not in installed(setting):
            raise MezoError(f"{where}: no installed package has it (entry points {kind.group}): install it")
        point = installed(setting)[base]
        place = f"{point.module}:{point.attr}"
        package = None if point.dist is None else f"{point.dist.name} {point.dist.version}"
    module = module_named(where, place.rpartition(":")[0])
    found = attribute_of(where, module, place.rpartition(":")[2])
    _check(where, kind, found, settings)
    return Plugin(found, settings, place, package, source_digest(found, module))


def record_of(settings: Mapping[str, Any], kinds: Iterable[str] = tuple(KINDS)) -> dict[str, dict[str, Any]]:
    """What a run records of the plugins that its settings name, by "setting name". Raises MezoError as `find` does."""
    return {
        f"{setting} {split(name)[0]}": load(setting, name).record()
        for setting, name in names_of(settings, kinds)
    }


def made(where: str, make: Callable[..., T], settings: Mapping[str, Any]) -> T:
    """`make(**settings)`; a mistake in them is a MezoError."""
    try:
        return make(**settings)
    except TypeError as error:
        raise MezoError(f"{where}: {error}; give each of its fields a default") from None


def _check(where: str, kind: PluginKind, found: Any, settings: Mapping[str, Any]) -> None:
    """Before anything of it is called: it is what the registry holds, and takes these settings."""
    if kind.base is not None:
        module, _, name = kind.base.partition(":")
        base = getattr(importlib.import_module(module), name)
        fits = isinstance(found, base)
        if isinstance(found, type):
            fits = issubclass(found, base)
        if not fits and not (kind.functions and callable(found) and not isinstance(found, type)):
            also = ", or a function" if kind.functions else ""
            raise MezoError(f"{where}: expected a {kind.base.replace(':', '.')}{also}, found {found!r:.200}")
    elif not callable(found):
        raise MezoError(f"{where}: expected a function, found {found!r:.200}")
    if settings and not callable(found):
        raise MezoError(f"{where}: is an object, which takes no settings; name its class")
    if settings:
        known = inspect.signature(found).parameters
        for name in settings:
            if name not in known:
                raise MezoError(f"{where} has no setting {name!r}{near(name, known)}")
