"""A paper as text in sections, from Markdown, plain text, LaTeX or PDF, shortened to a budget of tokens."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mezo.ablation.planner.latex import flattened, main_file, title_of
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
        kept = set(range(len(self.sections)))
        for n in self._least():
            if sum(sizes[i] for i in kept) <= tokens or len(kept) == 1:
                break
            kept.remove(n)
        left = [s.heading or "the beginning" for n, s in enumerate(self.sections) if n not in kept]
        text = "\n".join(self.sections[n].text for n in sorted(kept))
        notes = [f"left out for length: {'; '.join(left)}"] if left else []
        if (size := count(text)) > tokens:
            text = text[: max(1, len(text) * tokens // size)]
            notes.append("cut off here")
        return f"{text}\n[{'; '.join(notes)}]" if notes else text

    def _least(self) -> list[int]:
        """Sections in the order in which they are left out; the first one comes last."""
        rank = []
        for n, section in enumerate(self.sections):
            place = next((i for i, p in enumerate(_LESS) if re.search(p, section.heading, re.I)), len(_LESS))
            abstract = n == 0 or re.search("abstract", section.heading, re.I)
            rank.append((len(_LESS) + 1 if abstract else place, -n, n))
        return [n for *_, n in sorted(rank)]


def read_paper(path: Path | str) -> Paper:
    r"""Read .md, .txt, .tex (with what it \inputs), a folder of LaTeX, or .pdf.

    Raises MezoError if the file does not exist, has another format, or holds no text.
    """
    path = Path(path)
    if not path.exists():
        raise MezoError(f"{path}: no such paper; give a .md, .txt, .tex or .pdf file, or a folder of LaTeX")
    if path.is_dir():
        return read_paper(main_file(path))
    if path.stat().st_size > MOST_BYTES:
        raise MezoError(f"{path}: expected a paper of at most {MOST_BYTES >> 20} MiB, found a larger file")
    title, text, heading = _read(path)
    if len(text) > MOST_CHARACTERS:
        raise MezoError(f"{path}: expected at most {MOST_CHARACTERS:,} characters, found {len(text):,}")
    if not text.strip():
        raise MezoError(f"{path}: no text in it; a scanned PDF needs text recognition first")
    first = next(line for line in text.splitlines() if line.strip())
    title = title or " ".join(first.lstrip("# ").split())[:200] or path.stem
    return Paper(title, tuple(_sections(text, heading)))


def _read(path: Path) -> tuple[str, str, re.Pattern[str]]:
    """(title, text, pattern of a heading)."""
    with path.open("rb") as file:
        start = file.read(5)
    if start == b"%PDF-":
        return (*_pdf(path), _PLAIN)
    if path.suffix.lower() in (".tex", ".ltx"):
        text = flattened(path)
        return title_of(text), text, _LATEX
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MezoError(
            f"{path}: expected text in UTF-8, LaTeX or a PDF, found other bytes at {error.start}"
        ) from None
    except OSError as error:
        raise MezoError(f"{path}: cannot read the paper: {error.strerror}") from None
    marked = path.suffix.lower() in (".md", ".markdown") or re.search(r"^#{1,3} \S", text, re.MULTILINE)
    return "", text, _MARKDOWN if marked else _PLAIN


def _pdf(path: Path) -> tuple[str, str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise MezoError(
            f"{path}: reading a PDF needs the pypdf package: pip install 'mezo[planner]'"
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
    name, lines, fenced = "", [], False
    for line in text.splitlines():
        fenced ^= heading is _MARKDOWN and line.lstrip().startswith("```")
        found = None if fenced else heading.match(line.rstrip())
        if found is not None:
            if "".join(lines).strip():
                yield PaperSection(name, "\n".join(lines))
            groups = [group for group in found.groups() if group]
            name, lines = (groups[0] if groups else found[0]).strip(), []
        lines.append(line)
    if "".join(lines).strip():
        yield PaperSection(name, "\n".join(lines))
