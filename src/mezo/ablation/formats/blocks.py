"""A page of Markdown or HTML as blocks of text: headings, paragraphs, list items, tables, and how deep each one is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import unescape
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
# Comments and known tags; any other "<" is a letter. Found in linear time, as html.parser does not on any text.
_TAG = re.compile(
    rf"<!--|-->|<!doctype[^<>]*>|<(?P<end>/?)(?P<tag>{_KNOWN})(?P<rest>\s[^<>]*)?/?>", re.IGNORECASE
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
    depth: int = 0  # how many items of lists it is in; what an item contains follows its first line
    grid: list[list[str]] = field(default_factory=list)  # of a table: its rows
    gap: bool = False  # whether a blank line separates it from the block before
    boxes: int = 0  # how many boxes (<div>, <section>) it is in
    floor: int = 0  # and how few of them were open at some place since the block before

    @property
    def shown(self) -> str:
        """Its text, marked as in Markdown; empty without any."""
        text = "\n".join(" | ".join(row) for row in self.grid) or self.text
        head = (
            f"{'  ' * self.depth}{self.marker} " if self.marker else "#" * self.level + " " * bool(self.level)
        )
        return text and head + text


def markdown_blocks(text: str) -> list[Block]:
    """The blocks of a Markdown page, which may contain HTML. A line break ends a block."""
    from markdown_it import MarkdownIt

    # CommonMark reads the line after a tag as HTML, unless a blank line separates them
    text = _TAG_LINE.sub(r"\1\n", _ODD_BULLET.sub(r"\1-", text))
    reader = MarkdownIt("commonmark", {"html": True, "breaks": True}).enable("table").disable("code")
    return html_blocks(reader.render(text))


def html_blocks(text: str) -> list[Block]:
    """The blocks of an HTML page. An unknown tag (<seed>) is text."""
    reader, end = _Reader(), 0
    for tag in _TAG.finditer(text):
        reader.take_text(unescape(text[end : tag.start()]))
        reader.take_tag(tag)
        end = tag.end()
    reader.take_text(unescape(text[end:]))
    reader.end_line()
    return reader.blocks


def joined(blocks: Iterable[Block]) -> str:
    """Blocks as one text."""
    return "".join(("\n\n" if block.gap else "\n") + block.shown for block in blocks if block.shown).strip(
        "\n"
    )


class _Reader:
    def __init__(self) -> None:
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
        if self.blocks and self.blocks[-1] is self._item() and not (self.blocks[-1].text or self._level):
            self.blocks[-1].text = text
        elif not self._level and (found := _BULLET.match(text)):
            self._add(Block(text[found.end() :], marker=found[1]))
        else:
            self._add(Block(text, self._level))
        self._gap, self._level = gap, 0

    def take_text(self, data: str) -> None:
        if self._hidden or not data:
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

    def take_tag(self, found: re.Match[str]) -> None:
        comment = found[0] in ("<!--", "-->")
        tag = "comment" if comment else (found["tag"] or "").lower()
        ends = found[0] == "-->" or found["end"] == "/"
        if tag in _HIDDEN and not ends:
            self._hidden.append(tag)
        elif self._hidden:
            if self._hidden[-1] == tag:
                self._hidden.pop()
        elif comment:
            self.take_text("-->")
        elif tag in _MARKS:
            self.take_text("" if self._pre else _MARKS[tag][ends])
        elif tag == "table":
            self._take_table(ends=ends)
        elif self._tables and not ends:
            self._in_table(tag)
        elif tag in _BLOCKS and not self._tables:
            self._end_block(tag) if ends else self._start_block(tag, found["rest"] or "")

    def _take_table(self, *, ends: bool) -> None:
        if not ends:
            self.end_line(gap=True)
            self._tables += 1
        elif self._tables:
            self._tables -= 1
            if not self._tables and self._rows:
                self._add(Block(grid=[["".join(cell).strip() for cell in row] for row in self._rows if row]))
                self._rows = []

    def _start_block(self, tag: str, attributes: str) -> None:
        self.end_line(gap=tag not in ("br", "li"))
        self._level = int(tag[1]) if tag in _HEADINGS else 0
        self._boxes += [len(self._lists)] if tag in _BOXES else []
        self._pre = self._pre or tag == "pre"
        if tag in ("ul", "ol"):
            start = re.search(r"start=.?(\d{1,3})\b", attributes)
            self._lists.append([0 if tag == "ul" else int(start[1]) if start else 1, None])
        elif tag == "li":
            number, _ = self._lists.pop() if self._lists else (-1, None)
            item = self._add(Block(marker=f"{number}." if number > 0 else "-"))
            self._lists.append([number + (number > 0), item])

    def _end_block(self, tag: str) -> None:
        if tag == "br":
            return
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

    def _add(self, block: Block) -> Block:
        self.blocks.append(block)
        block.depth = 0 if (item := self._item()) is None else item.depth + 1
        block.gap, block.boxes, block.floor = self._gap or bool(block.grid), len(self._boxes), self._floor
        self._gap, self._floor = False, len(self._boxes)
        return block

    def _in_table(self, tag: str) -> None:
        if tag == "tr" or not self._rows:
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append([])
        elif tag in ("br", "li", "p", "ul", "ol", "div") and self._rows[-1]:
            cell = self._rows[-1][-1]  # these tags separate its entries
            if any(cell[-3:]) and not "".join(cell[-3:]).rstrip().endswith(";"):
                cell.append("; ")
