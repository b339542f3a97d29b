"""Nothing in the package runs what a file says."""

import ast
from pathlib import Path

import pytest

import mezo

SOURCE = Path(mezo.__file__).parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
CALLS = {"eval", "exec"}


def unsafe(tree: ast.Module) -> list[str]:
    """Ways of loading that can run code: pickle and kin, eval, yaml.load, torch.load, np.load of objects."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            found += _unsafe_call(node)
    return found


def _unsafe_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
    bad = (
        name in CALLS
        or name in ("yaml.unsafe_load", "yaml.full_load")
        or (name == "yaml.load" and not _loads_safely(node))
        or (name == "torch.load" and given.get("weights_only") != "True")
        or given.get("allow_pickle") == "True"
    )
    return [f"line {node.lineno}: {name}"] if bad else []


def _loads_safely(node: ast.Call) -> bool:
    """yaml.load with a loader whose file derives it from SafeLoader."""
    loader = (
        ast.unparse(node.args[1]) if len(node.args) > 1 else ""
    )  # "loader": of `mezo.parsing`, typed as one
    return loader in {"yaml.SafeLoader", "loader", *SAFE}


def _derived_safely() -> set[str]:
    """Names of classes of the package whose one base is yaml.SafeLoader."""
    return {
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
    }


SAFE = _derived_safely()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_run(path: Path) -> None:
    assert unsafe(ast.parse(path.read_text())) == []


@pytest.mark.parametrize("line", ["import pickle", "eval(x)", "yaml.load(f)", "torch.load(f)"])
def test_what_would_run_one_is_seen(line: str) -> None:
    assert unsafe(ast.parse(line))


def test_the_loader_that_is_handed_on_is_a_safe_one() -> None:
    """Held by its type, which `make lint` checks at every call."""
    tree = ast.parse((SOURCE / "parsing.py").read_text())
    annotations = [
        ast.unparse(argument.annotation)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
        if argument.arg == "loader" and argument.annotation is not None
    ]
    assert annotations == ["type[yaml.SafeLoader]"]
