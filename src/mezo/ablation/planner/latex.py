"""A paper in LaTeX: its files in one text, without comments and preamble. The source stays LaTeX."""

import re
from pathlib import Path

from mezo.errors import MezoError

_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]+)\}|\\input\s+([\w./-]+)")
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*\{")
_DEEPEST = 20  # files in files


def main_file(folder: Path) -> Path:
    """The file of a folder that begins the document.

    Raises MezoError without such a file, or with several of which none has a usual name.
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
    r"""The document of `path` with the text of every \input, without comments.

    Only files in the folder of `path` are read. A file that is missing or lies elsewhere is left out, because papers
    often refer to such files (figures made on another machine).
    """
    text = _expand(path, path.parent.resolve(), 0)
    body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", text, re.DOTALL)
    if body is None:
        return text
    title = _TITLE.search(text[: body.start()])
    return ("" if title is None else title[0] + _group(text, title.end())) + body[1]


def title_of(text: str) -> str:
    r"""The argument of \title as one line; empty without a title."""
    found = _TITLE.search(text)
    inner = _group(text, found.end())[:-1] if found else ""
    return " ".join(re.sub(r"\\(?:\\|[a-zA-Z]+\s*)|[{}]", " ", inner).split())


def _group(text: str, start: int) -> str:
    """From `start`, behind an opening brace, to the brace that closes it."""
    depth, place = 1, start
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
