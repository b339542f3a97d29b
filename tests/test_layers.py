"""Imports go downwards only, and never in a circle, so that a lower layer can be read and tested without those above.

Every import counts: those inside functions, and those for types alone.
"""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import mezo

SOURCE = Path(mezo.__file__).parent

# Lowest first. A file may import from its own layer and those before it, never from one after it.
LAYERS = (
    {"errors", "events", "scoring"},
    {"metrics", "util"},
    {"config", "models", "noise", "objectives", "tasks"},
    {"combinations", "data", "types"},
    {"weights"},
    {"estimators", "optimizers", "runs", "tuning"},
    {"engines", "sinks"},
    {"algorithm", "parallel"},
    {"build", "optim"},
    {"resume"},
    {"training"},
    {"ablation", "api", "baselines", "search"},
    {"cli", "sglang"},
    {"__main__"},
)
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def module_of(path: Path, source: Path = SOURCE) -> str:
    """engines.base of engines/base.py, engines of engines/__init__.py."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# The package itself is no layer: it names the public classes and imports them on first use.
FILES = {module_of(path): path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"}
Needs = Mapping[str, set[str]]


def imported(
    tree: ast.Module, modules: "set[str] | frozenset[str]" = frozenset(FILES)
) -> list[tuple[int, str]]:
    """(line, module of mezo) of every import in a file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name.removeprefix("mezo.") if name.startswith("mezo.") else ""
            while module and module not in modules:
                module = module.rpartition(".")[0]  # a class or function of it
            if module:
                found.append((node.lineno, module))
    return found


NEEDS: Needs = {
    module: {name for _, name in imported(ast.parse(path.read_text()))} - {module}
    for module, path in FILES.items()
}


def folded(needs: Needs, name: Callable[[str], str]) -> Needs:
    """Who needs whom, between groups of modules."""
    found: dict[str, set[str]] = {}
    for module, others in needs.items():
        found.setdefault(name(module), set()).update(name(other) for other in others)
    return {module: others - {module} for module, others in found.items()}


def circle(needs: Needs) -> set[str]:
    """The modules that are left when all that need nobody, or nobody who is left, are taken away."""
    left = dict(needs)
    while leaves := {name for name, others in left.items() if not others & left.keys()}:
        for leaf in leaves:
            del left[leaf]
    return set(left)


def folder_of(depth: int) -> Callable[[str], str]:
    """The folder of a module, no deeper than `depth`; a file at the top is its own."""

    def name(module: str) -> str:
        path = FILES[module]
        folder = module if path.name == "__init__.py" else module.rpartition(".")[0] or module
        return ".".join(folder.split(".")[:depth])

    return name


def test_every_module_has_a_layer() -> None:
    assert {module.partition(".")[0] for module in FILES} == LAYER_OF.keys()


@pytest.mark.parametrize("module", FILES)
def test_no_import_goes_upwards(module: str) -> None:
    mine = LAYER_OF[module.partition(".")[0]]
    upward = [
        f"{module}:{line} imports {name}"
        for line, name in imported(ast.parse(FILES[module].read_text()))
        if LAYER_OF[name.partition(".")[0]] > mine
    ]
    assert upward == []


def test_no_files_import_each_other() -> None:
    assert circle(NEEDS) == set(), "these import each other in a circle"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_folders_import_each_other(depth: int) -> None:
    assert circle(folded(NEEDS, folder_of(depth))) == set(), "these import each other in a circle"


def test_the_top_can_be_taken_in_at_a_glance() -> None:
    inside = [path for path in SOURCE.iterdir() if not path.name.startswith(("__pycache__", "py.typed"))]
    assert sum(path.suffix == ".py" for path in inside) <= 12
    assert sum(path.is_dir() for path in inside) <= 22


def test_files_are_short() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES.values())
    assert lengths[len(lengths) // 2] < 120
    long = {m for m, path in FILES.items() if len(path.read_text().splitlines()) > 350}
    assert long == {"config"}, "only a table may have more lines"


TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}
# Kernels take addresses; commands have a parameter an option; these are what programs call.
MANY_PARAMETERS = ("noise.cpu", "noise.gpu", "cli.")
PUBLIC = {
    "api.mezo_finetune",
    "training.trainer.__init__",
    "engines.transformers.engine.__init__",
    "data.dataset.__init__",
}


def test_no_function_has_many_parameters() -> None:
    many = set()
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not module.startswith(MANY_PARAMETERS):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > 8:
                    many.add(f"{module}.{node.name}")
    assert many == PUBLIC


def test_no_public_class_has_the_name_of_another() -> None:
    found: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_an_import_in_a_function_or_for_types_is_seen() -> None:
    tree = ast.parse(
        "def f():\n    from mezo import cli\n    import mezo.engines.base, os\n"
        "if TYPE_CHECKING:\n    from mezo.weights.weights import Weights\n"
    )
    assert sorted(imported(tree)) == [(2, "cli"), (3, "engines.base"), (5, "weights.weights")]


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == {"a", "b", "c", "d"}
    assert circle({"a": {"b"}, "b": set()}) == set()
