"""The package's folders and files import in one direction, and no public class name is used twice."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mezo.ablation

SOURCE = Path(mezo.ablation.__file__).parent
FILES = {path.relative_to(SOURCE).with_suffix("").as_posix(): path for path in SOURCE.rglob("*.py")}
# Lowest first: a folder imports itself and those before it.
ORDER = ("plans", "formats", "binding", "planner", "judge", "run", "report")


def imports(path: Path) -> set[str]:
    """The files of the package that a file imports, in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mezo.ablation"):
            module = (node.module or "").removeprefix("mezo.ablation").strip(".").replace(".", "/")
            inner = {f"{module}/{name.name}".strip("/") for name in node.names}
            found |= {name for name in (*inner, module) if name in FILES}
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("mezo.ablation") for name in node.names), path
    return found


def test_files_import_in_one_direction() -> None:
    graph = {name: imports(path) for name, path in FILES.items()}
    assert graph["run/prepare"]  # imports are seen
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("name", sorted(FILES))
def test_folders_import_downwards(name: str) -> None:
    folder = name.partition("/")[0]
    if folder == "__init__":
        return
    for other in imports(FILES[name]):
        assert ORDER.index(other.partition("/")[0]) <= ORDER.index(folder), other


def test_no_public_class_name_is_used_twice() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES.values()]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1 and not name.startswith("_")] == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_is_long(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 350
