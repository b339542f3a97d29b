"""A page of Markdown, of HTML, or of both, as lines of Markdown; and text whose encoding was mistaken."""

import html as entities
import re
from dataclasses import dataclass

_TAGS = (
    "html head title body main header footer section article div span style script p br hr h1 h2 h3 h4 h5 h6 "
    "ul ol li strong b em i u code pre sup sub small mark details summary blockquote dl dt dd "
    "table caption colgroup col thead tbody tfoot tr th td a meta link"
)
_TOKEN = re.compile(
    rf"<!--|-->|<!doctype[^<>]*>|</?(?:{'|'.join(_TAGS.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_NAME = re.compile(r"</?(\w+)")
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|\w+);", re.IGNORECASE)
_UNSHOWN = ("style", "script", "head", "title")  # what is inside is no text of the page
_BOXES = ("div", "section", "article")
# Opened and closed. A power (10<sup>-3</sup>) is written as in formulas.
_INLINE = {"strong": ("**", "**"), "b": ("**", "**"), "sup": ("^{", "}")}
_BREAKS_OF_CELLS = ("br", "li", "p", "ul", "ol", "div")  # between the entries of a table's cell


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    boxes: tuple[int, ...]  # around it (<div>, <section>), from the outside, each with a number of its own


def lines_of(text: str, *, html: bool = False) -> list[Line]:
    """The lines of a page, its tags turned into Markdown.

    html: breaks between lines mean nothing but in <pre>, as browsers have it; else they are kept, as in
    Markdown with HTML in it. Tags of no page of text (<seed>) are text.
    """
    reader = _Reader(html)
    last = 0
    for match in _TOKEN.finditer(text):
        reader.text(text[last : match.start()])
        reader.tag(match[0])
        last = match.end()
    reader.text(text[last:])
    reader.end_line()
    return reader.lines


class _Reader:
    def __init__(self, html: bool) -> None:
        self.lines: list[Line] = []
        self._html = html
        self._line = ""
        self._boxes: tuple[int, ...] = ()
        self._opened = 0
        self._lists = 0
        self._tables = 0  # those that are open, one inside the other
        self._pre = False
        self._until: str | None = None  # the end of what is not shown

    def end_line(self) -> None:
        self.lines.append(Line(self._line.rstrip() if self._html else self._line, self._boxes))
        self._line = ""

    def text(self, text: str) -> None:
        if self._until is not None:
            return
        text = _ENTITY.sub(
            lambda match: entities.unescape(match[0]), _collapsed(text) if self._folds else text
        )
        if self._folds:
            self._line += text.lstrip(" ") if not self._line.strip() else text
            return
        first, *others = text.split("\n")
        self._line += first
        for other in others:
            self.end_line()
            self._line = other

    @property
    def _folds(self) -> bool:
        return (self._html or self._tables > 0) and not self._pre

    def tag(self, token: str) -> None:
        name = token.lower() if token.startswith(("<!", "-->")) else _NAME.match(token)[1].lower()  # type: ignore[index]
        closing = token.startswith("</")
        if self._until is not None:
            if self._until == (f"/{name}" if closing else name):
                self._until = None
        elif token == "<!--":
            self._until = "-->"
        elif name in _UNSHOWN and not closing:
            self._until = f"/{name}"
        else:
            self._shown(name, closing)

    def _shown(self, name: str, closing: bool) -> None:
        if name in _INLINE:
            self._line += _INLINE[name][closing]
        elif name == "table":
            self._fresh()
            self._tables = max(0, self._tables + (-1 if closing else 1))
        elif self._line.lstrip().startswith("|") and name in _BREAKS_OF_CELLS:
            if not closing and not re.search(r"[|;]\s*$", self._line):
                self._line = self._line.rstrip() + "; "
        elif name in _BOXES:
            self._fresh()
            self._opened += 1
            self._boxes = self._boxes[:-1] if closing else (*self._boxes, self._opened)
        elif re.fullmatch(r"h[1-6]", name):
            self._fresh()
            self._line = "" if closing else "#" * int(name[1]) + " "
        elif name in ("ul", "ol"):
            self._fresh()
            self._lists = max(0, self._lists + (-1 if closing else 1))
        elif name == "li":
            self._fresh()
            self._line = "" if closing else "  " * (self._lists - 1) + "- "
        elif name == "code" and not self._pre:
            self._line += "`"
        elif name in ("th", "td"):
            self._line += "" if closing else "| "
        elif name == "pre":
            self._fresh()
            self._pre = not closing
        elif name in ("p", "br", "hr", "tr", "dt", "dd", "summary", "blockquote") and self._line.strip(" -"):
            self.end_line()  # but a <p> that opens an <li> leaves its dash where it is

    def _fresh(self) -> None:
        if self._line.strip():
            self.end_line()
        self._line = ""


def _collapsed(text: str) -> str:
    return re.sub(r"[ \t\r\n\f]+", " ", text)


# What UTF-8 looks like when it was read as Windows-1252 once: letters of that code page side by side.
_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
_LETTERS = {(bytes([b]).decode("cp1252") if b not in _UNDEFINED else chr(b)): b for b in range(0x80, 0x100)}
_RUN = re.compile(f"[{re.escape(''.join(_LETTERS))}]{{2,}}")


def repaired(text: str) -> str:
    """`text` with UTF-8 that was mistaken for Windows-1252 set right: "ðŸ§\\xa0" is "🧠".

    Only runs that are whole UTF-8 when taken back are changed; "naïve café" is not.
    """

    def back(match: re.Match[str]) -> str:
        try:
            return bytes(_LETTERS[letter] for letter in match[0]).decode("utf-8")
        except UnicodeDecodeError:
            return match[0]

    return _RUN.sub(back, text)
