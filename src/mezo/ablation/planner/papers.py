"""A paper as text in sections, from Markdown, plain text, LaTeX or PDF, shortened to a budget of tokens."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mezo.errors import MezoError

MOST_BYTES = 64 << 20  # of a file: a PDF with figures
MOST_CHARACTERS = 4_000_000  # of a paper's text: about a thousand pages
_MARKDOWN = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$")
_LATEX = re.compile(
    r"^\s*\\(?:chapter|(?:sub)*section)\*?\s*(?:\[[^\]]*\])?\s*\{(.+?)\}|^\s*\\begin\{(abstract)\}"
)
_PLAIN = re.compile(
    r"^(?:(?:\d{1,2}|[A-H])(?:\.\d{1,2}){0,2}\.?\s{1,4}[A-Z][^.]{2,70}"
    r"|(?:abstract|introduction|related work|background|methods?|experiments?|results|ablations?|discussion"
    r"|conclusions?|limitations|acknowledge?ments?|references|bibliography|appendix)\b.{0,40})$",
    re.IGNORECASE,
)
_INPUT = re.compile(r"\\(?:input|include|subfile)\s*\{([^{}]+)\}|\\input\s+([\w./-]+)")
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
_TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*\{")
_DEEPEST = 20  # LaTeX files in files
# Sections are left out in this order where a paper does not fit.
_LESS = (
    r"references|bibliography",
    r"acknowledge?ments?|broader impact|ethic|checklist|author contribution|reproducib",
    r"appendi|supplement|^[A-H]\b",
    r"related work|conclusion|limitation",
    r"background|preliminar|theor|proof|convergence",
)


@dataclass(frozen=True, slots=True)
class PaperSection:
    heading: str  # empty: before the first heading
    text: str  # with its heading line


@dataclass(frozen=True, slots=True)
class Paper:
    title: str
    sections: tuple[PaperSection, ...]

    def fit(self, tokens: int, count: Callable[[str], int] | None = None) -> str:
        """The paper's text in at most `tokens`, with a note on what was left out.

        Whole sections are left out first: references, acknowledgements, appendices, related work, theory; then from the
        end. The beginning stays, and is cut if it alone is too long.
        count: tokens of a text; default: a quarter of its characters, as in English.
        """
        count = count or (lambda text: -(-len(text) // 4))
        sizes = [count(section.text) for section in self.sections]
        kept = list(range(len(self.sections)))
        for n in sorted(kept, key=self._worth):
            if sum(sizes[i] for i in kept) <= tokens or len(kept) == 1:
                break
            kept.remove(n)
        left = [s.heading or "the beginning" for n, s in enumerate(self.sections) if n not in kept]
        text = "\n".join(self.sections[n].text for n in kept)
        notes = [f"left out for length: {'; '.join(left)}"] if left else []
        if (size := count(text)) > tokens:
            text = text[: max(1, len(text) * tokens // size)]
            notes.append("cut off here")
        return f"{text}\n[{'; '.join(notes)}]" if notes else text

    def _worth(self, n: int) -> tuple[int, int]:
        """Sorts sections by the order in which they are left out; the first one comes last."""
        heading = self.sections[n].heading
        if n == 0 or re.search("abstract", heading, re.I):
            return len(_LESS) + 1, -n
        return next((i for i, p in enumerate(_LESS) if re.search(p, heading, re.I)), len(_LESS)), -n


def read_paper(path: Path | str) -> Paper:
    r"""Read .md, .txt, .tex (with what it \inputs), a folder of LaTeX, or .pdf.

    Raises MezoError if the file does not exist, has another format, or holds no text.
    """
    path = Path(path)
    if not path.exists():
        raise MezoError(f"{path}: no such paper; give a .md, .txt, .tex or .pdf file, or a folder of LaTeX")
    try:
        if path.is_dir():
            path = _main_file(path)
        if path.stat().st_size > MOST_BYTES:
            raise MezoError(
                f"{path}: expected a paper of at most {MOST_BYTES >> 20} MiB, found a larger file"
            )
        title, text, heading = _read(path)
    except OSError as error:
        raise MezoError(f"{error.filename}: cannot read the paper: {error.strerror}") from None
    if len(text) > MOST_CHARACTERS:
        raise MezoError(f"{path}: expected at most {MOST_CHARACTERS:,} characters, found {len(text):,}")
    if not text.strip():
        raise MezoError(f"{path}: no text in it; a scanned PDF needs text recognition first")
    first = text.lstrip().partition("\n")[0]
    title = title or " ".join(first.lstrip("# ").split())[:200] or path.stem
    return Paper(title, tuple(_sections(text, heading)))


def _read(path: Path) -> tuple[str, str, re.Pattern[str]]:
    """(title, text, pattern of a heading)."""
    data, suffix = path.read_bytes(), path.suffix.lower()
    if data.startswith(b"%PDF-"):
        return (*_pdf(path), _PLAIN)
    if suffix in (".tex", ".ltx"):
        return (*_latex(path), _LATEX)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        where = f"found other bytes at {error.start}"
        raise MezoError(f"{path}: expected text in UTF-8, LaTeX or a PDF, {where}") from None
    marked = suffix in (".md", ".markdown") or re.search(r"^#{1,3} \S", text, re.MULTILINE)
    return "", text, _MARKDOWN if marked else _PLAIN


def _pdf(path: Path) -> tuple[str, str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise MezoError(
            f"{path}: reading a PDF needs the pypdf package: pip install 'mezo-llm[planner]'"
        ) from None
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise MezoError(f"{path}: the PDF is locked with a password; give an open copy")
        pages = [page.extract_text() for page in reader.pages]
        title = (reader.metadata.title if reader.metadata else None) or ""
    except MezoError:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise MezoError(f"{path}: not readable as a PDF: {' '.join(str(error).split())}") from None
    return " ".join(str(title).split()), "\n".join(pages)


def _sections(text: str, heading: re.Pattern[str]) -> Iterator[PaperSection]:
    parts: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in text.splitlines():
        fenced ^= heading is _MARKDOWN and line.lstrip().startswith("```")
        if not fenced and (found := heading.match(line.rstrip())):
            parts.append((next(filter(None, found.groups()), found[0]).strip(), []))
        parts[-1][1].append(line)
    return (PaperSection(name, "\n".join(lines)) for name, lines in parts if "".join(lines).strip())


# -------------------------------------------------------------------------------- LaTeX, which stays LaTeX


def _main_file(folder: Path) -> Path:
    """The one file of a folder that begins the document, by its name if there are several."""
    starts = [path for path in sorted(folder.rglob("*.tex")) if r"\documentclass" in _source(path)]
    usual = [path for path in starts if path.stem.lower() in ("main", "paper", "ms", "article", "root")]
    found = usual if len(usual) == 1 else starts
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
        raise MezoError(
            f"{folder}: expected one .tex file with \\documentclass, found {names}; give the file itself"
        )
    return found[0]


def _latex(path: Path) -> tuple[str, str]:
    r"""(title, document) of a file with the text of every \input, without comments and preamble."""
    text = _expanded(path, path.parent.resolve(), 0)
    title, inner = _TITLE.search(text), ""
    if title is not None:  # up to the brace that closes it
        end, depth = title.end(), 1
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inner = text[title.end() : end]
    body = re.search(r"\\begin\{document\}(.*?)(?:\\end\{document\}|\Z)", text, re.DOTALL)
    if body is not None:
        text = (f"{title[0]}{inner}" if title and title.start() < body.start() else "") + body[1]
    return " ".join(re.sub(r"\\(?:\\|[a-zA-Z]+\s*)|[{}]", " ", inner).split()), text


def _expanded(path: Path, root: Path, depth: int) -> str:
    """The text of a file with that of the files in `root` that it names; papers often name others, which are left out."""
    text = "\n".join(_COMMENT.sub(r"\1", line) for line in _source(path).splitlines())
    if depth >= _DEEPEST:
        raise MezoError(f"{path}: \\input nested {_DEEPEST} deep: does a file include itself?")

    def put(match: re.Match[str]) -> str:
        name = (match[1] or match[2]).strip()
        for candidate in (root / name, path.parent / name, root / f"{name}.tex", path.parent / f"{name}.tex"):
            found = candidate.resolve()
            if found.is_file() and found.is_relative_to(root):
                return _expanded(found, root, depth + 1)
        return ""

    return _INPUT.sub(put, text)


def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
