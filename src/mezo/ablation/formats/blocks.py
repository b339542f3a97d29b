"""A page of Markdown or HTML as blocks of text: headings, paragraphs, list items with what is inside them, tables."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_MARKS = {"strong": ("**", "**"), "b": ("**", "**"), "sup": ("^{", "}"), "code": ("`", "`")}
_HIDDEN = ("style", "script", "head", "title", "comment")
_BOXES = ("div", "section", "article")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = (
    *_BOXES,
    *_HEADINGS,
    *["p", "ul", "ol", "li", "br", "pre", "hr", "blockquote", "dl", "dt", "dd", "details", "summary"],
)
_INLINE = "html body main header footer span em i u sub small mark a meta link caption colgroup col thead tbody tfoot"
_KNOWN = "|".join((*_MARKS, *_HIDDEN, *_BLOCKS, *_INLINE.split(), "table", "tr", "td", "th"))
# Every "<" of a text: of a comment, of a known tag, or a letter like any other.
_TOKEN = re.compile(
    rf"<!--|-->|<!doctype[^<>]*>|<(?P<end>/?)(?P<tag>{_KNOWN})(?P<rest>\s[^<>]*)?/?>|<", re.IGNORECASE
)
_TAG_LINE = re.compile(
    r"^(.*</(?:div|section|article|table|style|h[1-6])>|<(?:div|section|article)\b[^<>]*>)[ \t]*$",
    re.MULTILINE,
)
_BULLET = re.compile(r"([-*+•‣◦▪·–—]|\d{1,3}[.)])\s+")
_ODD_BULLET = re.compile(r"^([ \t]*)[•‣◦▪·–—](?=[ \t]+\S)", re.MULTILINE)
_DEEPEST = 30  # lists in lists; what is deeper stands in the last one


@dataclass
class Block:
    text: str = ""
    level: int = 0  # of a heading; 0: no heading
    marker: str = ""  # of a list's item: "-" or "2."
    inner: list["Block"] = field(default_factory=list)  # what an item contains after its first line
    grid: list[list[str]] = field(default_factory=list)  # of a table: its rows
    gap: bool = False  # whether a blank line separates it from the block before
    boxes: int = 0  # how many boxes (<div>, <section>) it is in
    floor: int = 0  # and how few of them were open at some place since the block before

    @property
    def own(self) -> str:
        """Its text without what is inside it."""
        return "\n".join(" | ".join(row) for row in self.grid) or self.text


def markdown_blocks(text: str) -> list[Block]:
    """The blocks of a Markdown page, which may contain HTML. A line break ends a block."""
    from markdown_it import MarkdownIt

    # CommonMark reads the line after a tag as HTML, unless a blank line separates them
    text = _TAG_LINE.sub(r"\1\n", _ODD_BULLET.sub(r"\1-", text))
    reader = MarkdownIt("commonmark", {"html": True, "breaks": True}).enable("table").disable("code")
    return html_blocks(reader.render(text))


def html_blocks(text: str) -> list[Block]:
    """The blocks of an HTML page. An unknown tag (<seed>) is text."""
    reader = _Reader()
    reader.feed(_TOKEN.sub(_simple_tag, text))
    reader.close()
    reader.end_line()
    return reader.blocks


def shown(blocks: Sequence[Block], depth: int = 0) -> str:
    """Blocks as text, with headings and lists marked as in Markdown."""
    text = ""
    for block in blocks:
        if block.own:
            head = "#" * block.level + " " if block.level else ""
            head = f"{'  ' * depth}{block.marker} " if block.marker else head
            text += ("\n\n" if block.gap and text else "\n") + head + block.own
        if inner := shown(block.inner, depth + 1):
            text += ("\n\n" if block.inner[0].gap else "\n") + inner
    return text.strip("\n")


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
        self.blocks: list[Block] = []
        self._parts: list[str] = []  # of the line that is open
        self._level = self._floor = self._tables = 0
        self._gap = self._pre = False
        # of each open list: the number of its next item (0: not numbered, -1: a list without a tag), its last item
        self._lists: list[list[Any]] = []
        self._boxes: list[int] = []  # of each open box: how many lists are open around it
        self._hidden: list[str] = []
        self._rows: list[list[list[str]]] = []  # of the open table: rows of cells of texts

    def end_line(self, *, gap: bool = False) -> None:
        text, self._parts = "".join(self._parts).rstrip(), []
        if not text.strip():
            self._gap = self._gap or gap
            return
        item = self._item()
        if item is not None and not (item.text or item.inner or self._level):
            item.text = text
        elif not self._level and (found := _BULLET.match(text)):
            self._add(Block(text[found.end() :], marker=found[1]))
        else:
            self._add(Block(text, self._level))
        self._gap, self._level = gap, 0

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
            self._parts.append(data if self._parts else data.lstrip(" "))
        elif self._rows and self._rows[-1]:
            self._rows[-1][-1].append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag.startswith("x-"):
            self._hidden.append(tag)
        elif self._hidden:
            return
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][0])
        elif tag == "table":
            self.end_line(gap=True)
            self._tables += 1
        elif self._tables:
            self._in_table(tag)
        elif tag in _BLOCKS:
            self.end_line(gap=tag not in ("br", "li"))
            self._level = int(tag[1]) if tag in _HEADINGS else 0
            self._boxes += [len(self._lists)] if tag in _BOXES else []
            self._pre = self._pre or tag == "pre"
            if tag in ("ul", "ol"):
                self._lists.append([0 if tag == "ul" else int(dict(attrs).get("start") or 1), None])
            elif tag == "li":
                if not self._lists:
                    self._lists.append([-1, None])
                opened = self._lists[-1]
                number = opened[0]
                opened[1], block = None, Block(marker=f"{number}." if number > 0 else "-")
                self._add(block)
                opened[:] = number + (number > 0), block

    def handle_endtag(self, tag: str) -> None:
        if tag.startswith("x-"):
            if tag in self._hidden[-1:]:
                self._hidden.pop()
            elif not self._hidden and tag == "x-comment":
                self.handle_data("-->")
        elif self._hidden or tag == "br":
            return
        elif tag in _MARKS:
            self.handle_data("" if self._pre else _MARKS[tag][1])
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables and self._rows:
                self._add(Block(grid=[["".join(cell).strip() for cell in row] for row in self._rows if row]))
                self._rows = []
        elif tag in _BLOCKS and not self._tables:
            self.end_line(gap=tag != "li")
            self._level = 0
            self._pre = self._pre and tag != "pre"
            if tag in _BOXES and self._boxes:
                del self._lists[self._boxes.pop() :]
                self._floor = min(self._floor, len(self._boxes))
            elif self._lists and (tag in ("ul", "ol") or (tag == "li" and self._lists[-1][0] < 0)):
                self._lists.pop()

    def _item(self) -> Block | None:
        """The last item of the innermost list: text between two items belongs to the first."""
        return next((item for _, item in reversed(self._lists[:_DEEPEST]) if item is not None), None)

    def _add(self, block: Block) -> None:
        item = self._item()
        (self.blocks if item is None else item.inner).append(block)
        block.gap, block.boxes, block.floor = self._gap or bool(block.grid), len(self._boxes), self._floor
        self._gap, self._floor = False, len(self._boxes)

    def _in_table(self, tag: str) -> None:
        if tag == "tr" or not self._rows:
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append([])
        elif tag in ("br", "li", "p", "ul", "ol", "div") and self._rows[-1]:
            cell = self._rows[-1][-1]  # these tags separate its entries
            if any(cell[-3:]) and not "".join(cell[-3:]).rstrip().endswith(";"):
                cell.append("; ")
