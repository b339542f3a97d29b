"""Text from elsewhere in pages: one function for each place where it can stand. Nothing in it becomes markup.

What a reader cannot see (control characters, those that turn the direction of writing) is shown as its code.
"""

import html
import re

from mezo.util.parsing import one_line, printable

_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&!])")
_START = re.compile(r"^(\d*)([-+=.)])(?=[-+=\s]|$)")  # of a list, a rule, a heading
_PROSE = re.compile(r"<(?=[a-zA-Z/!?])|(?<=--)>|&(?=[#\w])|(?<=\])[(\[:]")


def html_text(text: object) -> str:
    """`text` for an element or a quoted attribute of HTML."""
    return html.escape(printable(str(text)))


def markdown_text(text: object) -> str:
    """`text` on one line of Markdown, also in a table; every character that Markdown or HTML reads is escaped."""
    # < > & as entities: not every reader of Markdown takes a backslash before them for an escape
    escaped = _SPECIAL.sub(lambda mark: _ENTITIES.get(mark[1], f"\\{mark[1]}"), one_line(text))
    return _START.sub(r"\1\\\2", escaped)


def code_span(text: object, *, table: bool = False) -> str:
    """`text` as a Markdown code span. table: for a table's cell."""
    plain = one_line(text) or " "
    runs = [len(ticks) for ticks in re.findall(r"`+", plain)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    code = f"{fence}{pad}{plain}{pad}{fence}"
    return code.replace("|", "\\|") if table else code


def code_block(lines: list[str], language: str = "sh") -> str:
    """`lines` as a fenced code block that they cannot close."""
    text = printable("\n".join(lines))
    runs = [len(ticks) for ticks in re.findall(r"`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def markdown_prose(text: str) -> str | None:
    """Text of several lines, its lists and emphasis kept, its HTML and links shown as they are written.

    None if it holds a character that cannot be seen: there is no prose of that which reads back.
    """
    if printable(text) != text:
        return None
    return _PROSE.sub(lambda mark: f"&#{ord(mark[0])};", text)


def figure_label(text: str) -> str:
    """`text` for matplotlib, which takes what stands between dollar signs for mathematics."""
    return printable(text).replace("$", r"\$")
