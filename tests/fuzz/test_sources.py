"""Nothing in the package runs what a file says."""

import ast
import re
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
        or re.fullmatch(r"yaml\.(\w+_)?load(_all)?", name)  # `mezo.util.parsing.parse_yaml` is the one reader
        or (name == "torch.load" and given.get("weights_only") != "True")
        or given.get("allow_pickle") == "True"
    )
    return [f"line {node.lineno}: {name}"] if bad else []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_run(path: Path) -> None:
    assert unsafe(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "line", ["import pickle", "eval(x)", "yaml.load(f)", "yaml.safe_load(f)", "torch.load(f)"]
)
def test_what_would_run_one_is_seen(line: str) -> None:
    assert unsafe(ast.parse(line))
