"""A paper in LaTeX: its files put together, comments and preamble left out. The source stays LaTeX."""

import re
from pathlib import Path

from mezo.errors import MezoError

_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]+)\}|\\input\s+([\w./-]+)")
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_DEEPEST = 20  # files in files


def main_file(folder: Path) -> Path:
    """The file of a folder that begins the document.

    Raises MezoError without a main file, or with several and none of a usual name.
    """
    starts = [path for path in sorted(folder.rglob("*.tex")) if r"\documentclass" in _read(path)]
    usual = [path for path in starts if path.stem.lower() in ("main", "paper", "ms", "article", "root")]
    found = usual if len(usual) == 1 else starts
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
        raise MezoError(
            f"{folder}: expected one .tex file with \\documentclass, found {names}; give the file itself"
        )
    return found[0]


def flattened(path: Path) -> str:
    r"""The document of `path` with every \input in its place, comments left out.

    Files are looked for in the folder of `path` and nowhere above it. One that is missing or lies
    elsewhere is left out, as papers carry such (figures made on another machine).
    """
    text = _expand(path, path.parent.resolve(), 0)
    body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", text, re.DOTALL)
    if body is None:
        return text
    title = re.search(r"\\title\s*(?:\[[^\]]*\])?\s*\{", text[: body.start()])
    head = "" if title is None else _group(text, title.start(), title.end())
    return head + body[1]


def title_of(text: str) -> str:
    """What \\title says, as one line; empty without one."""
    found = re.search(r"\\title\s*(?:\[[^\]]*\])?\s*\{", text)
    if found is None:
        return ""
    inner = _group(text, found.start(), found.end())[found.end() - found.start() : -1]
    return " ".join(re.sub(r"\\(?:\\|[a-zA-Z]+\s*)|[{}]", " ", inner).split())


def _group(text: str, start: int, inside: int) -> str:
    """From `start` to the brace that closes the one before `inside`."""
    depth, place = 1, inside
    while place < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
    return text[start:place]


def _expand(path: Path, root: Path, depth: int) -> str:
    text = "\n".join(_COMMENT.sub(r"\1", line) for line in _read(path).splitlines())
    if depth >= _DEEPEST:
        raise MezoError(f"{path}: \\input nested {_DEEPEST} deep: does a file include itself?")

    def put(match: re.Match[str]) -> str:
        name = (match[1] or match[2]).strip()
        for candidate in (root / name, path.parent / name, root / f"{name}.tex", path.parent / f"{name}.tex"):
            found = candidate.resolve()
            if found.is_file() and found.is_relative_to(root):
                return _expand(found, root, depth + 1)
        return ""

    return _INPUT.sub(put, text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MezoError(f"{path}: cannot read the paper: {error.strerror}") from None
