"""Imports go downwards only, so that a lower layer can be read and tested without those above."""

import ast
from pathlib import Path

import pytest

import mezo

SOURCE = Path(mezo.__file__).parent

# Lowest first. A module may import its own layer and those before it, never one after it.
LAYERS = (
    {
        "errors",
        "clock",
        "registry",
        "types",
        "events",
        "scoring",
        "config",
        "memory",
        "interrupts",
        "profiling",
        "parsing",
        "escaping",
        "foreign",
        "secrets",
        "widened",
        "whole_answers",
    },
    {"noise", "metrics"},
    {
        "lowrank",
        "heading",
        "limits",
        "weights",
        "passes",
        "tuning",
        "estimators",
        "optimizers",
        "objectives",
        "tasks",
        "data",
        "smollm2",
        "checkpoints",
        "model_identity",
        "models",
        "run",
        "locking",
        "logbook",
        "packing",
        "sinks",
    },
    {"trajectory", "snapshots", "plots", "card", "summary"},
    {"engines"},
    {"parallel"},
    {"algorithm", "evaluation", "setup", "measuring", "result", "advice", "watching"},
    {"folding", "differences", "resuming", "recording", "outcome", "session", "trainer_files", "following"},
    {"trainer", "optim", "replay", "trajectory_tools", "trajectory_checks", "publishing"},
    {"api"},
    {"baselines", "search", "ablation"},
    {"cli", "__main__"},
)
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}
# The package itself is no layer: it names the public classes and imports them on first use.
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def layer_name(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, module of mezo) of every import, those inside functions too; not those for types alone."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "mezo":
            names = [f"mezo.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it in full"
            names = [node.module or ""]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("mezo.")]
    return found


def test_every_module_has_a_layer() -> None:
    assert {layer_name(path) for path in FILES} - LAYER_OF.keys() == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_import_goes_upwards(path: Path) -> None:
    mine = LAYER_OF[layer_name(path)]
    upward = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for line, name in imported(ast.parse(path.read_text()))
        if LAYER_OF.get(name, mine) > mine
    ]
    assert upward == []


def test_no_two_modules_need_each_other() -> None:
    needs: dict[str, set[str]] = {}
    for path in FILES:
        names = {name for _, name in imported(ast.parse(path.read_text()))}
        needs.setdefault(layer_name(path), set()).update(names - {layer_name(path)})
    while leaves := {name for name, others in needs.items() if not others & needs.keys()}:
        for name in leaves:
            del needs[name]
    assert needs == {}, "these import each other in a circle"


def test_an_upward_import_is_seen() -> None:
    tree = ast.parse("def f():\n    from mezo import cli\n    import mezo.engines.base, os\n")
    assert sorted(imported(tree)) == [(2, "cli"), (3, "engines")]
