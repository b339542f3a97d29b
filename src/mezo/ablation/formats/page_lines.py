"""A page of Markdown or HTML as lines of text: headings, list items, paragraphs, tables."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_HIDDEN = ("style", "script", "head", "title", "comment")
_BOXES = ("div", "section", "article")
_BLOCKS = ("p", "ul", "ol", "pre", "hr", "blockquote", "dl", "dt", "dd", "details", "summary", *_BOXES)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_MARKS = {"strong": ("**", "**"), "b": ("**", "**"), "sup": ("^{", "}"), "code": ("`", "`")}
_TABLES = ("table", "tr", "td", "th")
_IN_CELLS = ("br", "li", "p", "ul", "ol", "div")  # separate the entries of a table's cell
_IGNORED = (
    *("html", "body", "main", "header", "footer", "span", "em", "i", "u", "sub", "small", "mark", "a"),
    *("meta", "link", "caption", "colgroup", "col", "thead", "tbody", "tfoot"),
)
_KNOWN = "|".join((*_HIDDEN, *_BLOCKS, *_HEADINGS, *_MARKS, *_TABLES, *_IGNORED, "br", "li"))
# Every "<" of a text: of a comment, of a known tag, or a letter like any other.
_TOKEN = re.compile(
    rf"<!--|-->|<!doctype[^<>]*>|<(?P<end>/?)(?P<tag>{_KNOWN})(?P<rest>\s[^<>]*)?/?>|<", re.IGNORECASE
)
_TAG_LINE = re.compile(
    r"^(.*</(?:div|section|article|table|style|h[1-6])>|<(?:div|section|article)\b[^<>]*>)[ \t]*$",
    re.MULTILINE,
)
_BULLET = re.compile(r"([-*+•‣◦▪·–—]|\d{1,3}[.)])\s+")
_DEEPEST = 30  # nested boxes that are distinguished


@dataclass
class Line:
    text: str = ""
    level: int = 0  # of a heading; 0: no heading
    marker: str = ""  # of a list's item: "-" or "2."
    indent: int = 0  # grows with each list around the line
    boxes: tuple[int, ...] = ()  # the boxes around it (<div>, <section>), outermost first, each with a number
    gap: bool = False  # whether a new block begins here
    grid: list[list[str]] = field(default_factory=list)  # of a table: its rows


def markdown_lines(text: str) -> list[Line]:
    """The lines of a Markdown page, which may contain HTML. Line breaks are kept."""
    from markdown_it import MarkdownIt

    # CommonMark reads the line after a tag as HTML, unless a blank line separates them
    text = _TAG_LINE.sub(r"\1\n", text)
    reader = MarkdownIt("commonmark", {"html": True, "breaks": True}).enable("table").disable("code")
    return html_lines(reader.render(text))


def html_lines(text: str) -> list[Line]:
    """The lines of an HTML page. An unknown tag (<seed>) is text."""
    reader = _Reader()
    reader.feed(_TOKEN.sub(_simple_tag, text))
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
        body = "\n".join(" | ".join(row) for row in line.grid) or line.text
        texts.append(("\n" if line.gap and texts else "") + head + body)
    return "\n".join(texts).strip()


def _simple_tag(found: re.Match[str]) -> str:
    """A tag without attributes, so that html.parser takes linear time on any text."""
    if found[0] == "<":
        return "&lt;"
    if found["tag"] is None:
        return {"<!--": "<x-comment>", "-->": "</x-comment>"}.get(found[0], "")
    name = found["tag"].lower()
    start = re.search(r"start=.?(\d{1,3})\b", found["rest"] or "") if name == "ol" else None
    hidden = "x-" if name in _HIDDEN else ""  # html.parser reads scripts and titles in other ways
    return f"<{found['end']}{hidden}{name}{f' start={start[1]}' if start else ''}>"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._line, self._parts = Line(), list[str]()
        self._boxes: tuple[int, ...] = ()
        self._opened = self._deeper = 0
        self._lists: list[int] = []  # of each open list: the number of its next item; 0: not numbered
        self._hidden: list[str] = []
        self._pre = False
        self._tables = 0
        self._rows: list[list[list[str]]] = []  # of the open table: rows of cells of texts

    def end_line(self, *, block: bool = False) -> None:
        line, inside = self._line, len(self._lists)
        line.text, self._parts = "".join(self._parts).rstrip(), []
        if line.text.strip():
            found = _BULLET.match(line.text) if not line.level and not line.marker else None
            if found:
                line.marker, line.text, line.indent = found[1], line.text[found.end() :], line.indent + 1
            self.lines.append(line)
        elif line.marker:
            return  # an item whose text comes in a paragraph
        gap = block or (line.gap and not line.text.strip())
        self._line = Line(indent=2 * inside + 1 if inside else 0, boxes=self._boxes, gap=gap)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._pre:
            first, *others = data.split("\n")
            self._parts.append(first)
            for other in others:
                self.end_line()
                self._parts.append(other)
            return
        data = re.sub(r"[ \t\r\n\f]+", " ", data)
        if not self._tables:
            data = data if self._parts else data.lstrip(" ")
            self._parts += [data] if data else []
        elif self._rows and self._rows[-1]:
            self._rows[-1][-1].append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag.startswith("x-"):
            self._hidden.append(tag)
        elif self._hidden or tag in _IGNORED:
            return
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][0])
        elif tag == "table":
            self.end_line(block=True)
            self._tables += 1
        elif self._tables:
            self._in_table(tag)
        elif tag == "br":
            self.end_line()
        elif tag == "li":
            self.end_line()
            number = self._lists[-1] if self._lists else 0
            if number:
                self._lists[-1] += 1
            self._line.marker, self._line.indent = f"{number}." if number else "-", 2 * len(self._lists)
        elif tag not in _TABLES:
            self._begin_block(tag, dict(attrs).get("start"))

    def handle_endtag(self, tag: str) -> None:
        if tag.startswith("x-"):
            if tag in self._hidden[-1:]:
                self._hidden.pop()
            elif not self._hidden and tag == "x-comment":
                self.handle_data("-->")
        elif self._hidden or tag in _IGNORED:
            return
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][1])
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables and self._rows:
                grid = [["".join(cell).strip() for cell in row] for row in self._rows if row]
                self.lines.append(Line(grid=grid, boxes=self._boxes, gap=True))
                self._rows = []
        elif not self._tables and tag not in (*_TABLES, "br"):
            self._end_block(tag)

    def _begin_block(self, tag: str, start: str | None) -> None:
        if tag in _BOXES and len(self._boxes) < _DEEPEST:
            self._opened += 1
            self._boxes = (*self._boxes, self._opened)
        elif tag in _BOXES:
            self._deeper += 1
        self.end_line(block=True)
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ul" else int(start or "1"))
            self._line.indent = 2 * len(self._lists) + 1
        self._pre = self._pre or tag == "pre"
        self._line.level = int(tag[1]) if tag in _HEADINGS else 0

    def _end_block(self, tag: str) -> None:
        if tag in _BOXES and self._deeper:
            self._deeper -= 1
        elif tag in _BOXES:
            self._boxes = self._boxes[:-1]
        if tag == "li" and not self._parts:
            self._line.marker = ""
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        self.end_line(block=tag != "li")
        self._pre = self._pre and tag != "pre"

    def _in_table(self, tag: str) -> None:
        if tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append([])
        elif tag in _IN_CELLS and self._rows and self._rows[-1]:
            cell = self._rows[-1][-1]
            if any(cell[-3:]) and not "".join(cell[-3:]).rstrip().endswith(";"):
                cell.append("; ")
