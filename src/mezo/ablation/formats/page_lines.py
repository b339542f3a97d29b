"""A page of Markdown or HTML as lines of text: headings, list items, paragraphs, tables."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

_HIDDEN = ("style", "script", "head", "title")
_BOXES = ("div", "section", "article")
_BLOCKS = (
    "p",
    "ul",
    "ol",
    "pre",
    "table",
    "hr",
    "blockquote",
    "dl",
    "dt",
    "dd",
    "details",
    "summary",
    *_BOXES,
)
_IN_CELLS = ("br", "li", "p", "ul", "ol", "div")  # separate the entries of a table's cell
_MARKS = {"strong": ("**", "**"), "b": ("**", "**"), "sup": ("^{", "}"), "code": ("`", "`")}
_IGNORED = re.compile(
    "html|body|main|header|footer|span|em|i|u|sub|small|mark|a|meta|link|caption|colgroup|col|thead|tbody|tfoot"
)
_TAG_LINE = re.compile(
    r"^(.*</(?:div|section|article|table|style|h[1-6])>|<(?:div|section|article)\b[^<>]*>)[ \t]*$",
    re.MULTILINE,
)
_BULLET = re.compile(r"([-*+•‣◦▪·–—]|\d{1,3}[.)])\s+")


@dataclass
class Line:
    text: str
    level: int = 0  # of a heading; 0: no heading
    marker: str = ""  # of a list's item: "-" or "2."
    indent: int = 0  # grows with each list around the line
    boxes: tuple[int, ...] = ()  # the boxes around it (<div>, <section>), outermost first, each with a number
    gap: bool = False  # whether a new block begins here
    grid: list[list[str]] | None = None  # of a table: its rows


def markdown_lines(text: str) -> list[Line]:
    """The lines of a Markdown page, which may contain HTML. Line breaks are kept."""
    from markdown_it import MarkdownIt

    # CommonMark reads what directly follows a tag on a line of its own as HTML
    text = _TAG_LINE.sub(r"\1\n", text)
    reader = MarkdownIt("commonmark", {"html": True, "breaks": True}).enable("table").disable("code")
    return html_lines(reader.render(text))


def html_lines(text: str) -> list[Line]:
    """The lines of an HTML page. An unknown tag (<seed>) is text."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.end_line()
    return reader.lines


def shown(lines: list[Line]) -> str:
    """Lines as text, with headings and lists marked as in Markdown."""
    texts = []
    for line in lines:
        head = "#" * line.level + " " if line.level else ""
        if line.marker:
            head = "  " * max(line.indent // 2 - 1, 0) + f"{line.marker} "
        body = "\n".join(" | ".join(row) for row in line.grid) if line.grid else line.text
        texts.append(("\n" if line.gap and texts else "") + head + body)
    return "\n".join(texts).strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._line = Line("")
        self._boxes: tuple[int, ...] = ()
        self._opened = 0
        self._lists: list[int] = []  # of each open list: the number of its next item; 0: not numbered
        self._hidden: list[str] = []
        self._pre = False
        self._tables = 0
        self._grid: list[list[str]] = []

    def end_line(self, *, block: bool = False) -> None:
        line, inside = self._line, len(self._lists)
        if line.text.strip():
            line.text = line.text.rstrip()
            if not line.level and not line.marker and (found := _BULLET.match(line.text)):
                line.marker, line.text, line.indent = found[1], line.text[found.end() :], line.indent + 1
            self.lines.append(line)
        elif line.marker:
            return  # an item whose text comes in a paragraph
        gap = block or (line.gap and not line.text.strip())
        self._line = Line("", indent=2 * inside + 1 if inside else 0, boxes=self._boxes, gap=gap)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._pre:
            first, *others = data.split("\n")
            self._line.text += first
            for other in others:
                self.end_line()
                self._line.text = other
            return
        data = re.sub(r"[ \t\r\n\f]+", " ", data)
        if self._tables:
            if self._grid and self._grid[-1]:
                self._grid[-1][-1] += data
        else:
            self._line.text += data if self._line.text.strip() else data.lstrip(" ")

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif self._hidden or _IGNORED.fullmatch(tag):
            return
        elif tag == "table":
            self.end_line(block=True)
            self._tables += 1
        elif self._tables:
            self._in_table(tag)
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][0])
        elif tag == "br":
            self.end_line()
        elif tag == "li":
            self.end_line()
            number = self._lists[-1] if self._lists else 0
            if number:
                self._lists[-1] += 1
            self._line.marker, self._line.indent = f"{number}." if number else "-", 2 * len(self._lists)
        elif tag in _BLOCKS or re.fullmatch("h[1-6]", tag):
            self._block(tag, dict(attrs) if isinstance(attrs, list) else {})
        else:
            self.handle_data(self.get_starttag_text() or "")

    def _block(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag in _BOXES:
            self._opened += 1
            self._boxes = (*self._boxes, self._opened)
        self.end_line(block=True)
        if tag in ("ul", "ol"):
            start = attributes.get("start") or "1"
            self._lists.append(0 if tag == "ul" else int(start) if start.isdigit() else 1)
            self._line.indent = 2 * len(self._lists) + 1
        self._pre = self._pre or tag == "pre"
        self._line.level = int(tag[1]) if tag[0] == "h" and tag != "hr" else 0

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables and self._grid:
                grid = [[cell.strip() for cell in row] for row in self._grid if row]
                self.lines.append(Line("", grid=grid, boxes=self._boxes, gap=True))
                self._grid = []
        elif self._tables:
            if tag in _MARKS:
                self.handle_data(_MARKS[tag][1])
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][1])
        elif tag in _BLOCKS or tag == "li" or re.fullmatch("h[1-6]", tag):
            if tag in _BOXES:
                self._boxes = self._boxes[:-1]
            if tag == "li" and not self._line.text.strip():
                self._line.marker = ""
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
            self.end_line(block=tag != "li")
            self._pre = self._pre and tag != "pre"
        elif tag != "br" and not _IGNORED.fullmatch(tag):
            self.handle_data(f"</{tag}>")

    def _in_table(self, tag: str) -> None:
        if tag == "tr":
            self._grid.append([])
        elif tag in ("td", "th"):
            if not self._grid:
                self._grid.append([])
            self._grid[-1].append("")
        elif tag in _MARKS:
            self.handle_data(_MARKS[tag][0])
        elif tag in _IN_CELLS and self._grid and self._grid[-1]:
            cell = self._grid[-1][-1].rstrip()
            if cell and not cell.endswith(";"):
                self._grid[-1][-1] = f"{cell}; "
