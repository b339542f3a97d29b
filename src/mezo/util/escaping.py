"""Text from elsewhere in pages: one function for each place where it can stand. Nothing in it becomes markup.

What a reader cannot see (control characters, those that turn the direction of writing) is shown as its code.
"""

import base64
import hashlib
import html
import json
import re
from typing import Any

from mezo.util.parsing import one_line, printable

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&!])")
_START = re.compile(r"^(\d*)([-+=.)])(?=[-+=\s]|$)")  # of a list, a rule, a heading
# HTML, code, emphasis, entities, links, images and their definitions; at the start of a line also lists, quotes, headings
_MARKUP = re.compile(
    r"[<>`*\x7f]|~~|&(?=[#\w])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|^(?:\d*[-+=.)](?=[-+=\s]|$)|#)"
)
_PROSE = re.compile(r"<(?=[a-zA-Z/!?])|(?<=--)>|&(?=[#\w])|(?<=\])[(\[:]")


def html_text(text: object) -> str:
    """`text` for an element or a quoted attribute of HTML."""
    return html.escape(printable(str(text)))


def markdown_text(text: object) -> str:
    """`text` on one line of Markdown, also in a table; every character that Markdown or HTML reads is escaped."""
    return _START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", one_line(text)))


def code_span(text: object, *, table: bool = False) -> str:
    """`text` as a Markdown code span. table: for a table's cell."""
    plain = one_line(text) or " "
    runs = [len(ticks) for ticks in re.findall(r"`+", plain)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    code = f"{fence}{pad}{plain}{pad}{fence}"
    return code.replace("|", "\\|") if table else code


def code_block(lines: list[str]) -> str:
    """`lines` as a fenced code block that they cannot close."""
    text = printable("\n".join(lines))
    runs = [len(ticks) for ticks in re.findall(r"`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}sh\n{text}\n{fence}\n"


def is_plain_markdown(text: str) -> bool:
    """Whether a line means nothing to Markdown or HTML as it is."""
    return text.isprintable() and _MARKUP.search(text) is None


def markdown_prose(text: str) -> str | None:
    """Text of several lines, its lists and emphasis kept, its HTML and links shown as they are written.

    None if it holds a character that cannot be seen: there is no prose of that which reads back.
    """
    if printable(text) != text:
        return None
    return _PROSE.sub(lambda mark: f"&#{ord(mark[0])};", text)


def marked_json(value: Any) -> str:
    """JSON on one line, in ASCII, that means nothing to HTML, Markdown or a script element."""
    text = json.dumps(value)
    for mark in "<>&`":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    text = text.replace("](", "]\\u0028")  # only inside a text does JSON have these side by side
    return text.replace("  ", "\\u0020 ").replace("  ", "\\u0020 ")  # which HTML would make one


def json_script(value: Any) -> str:
    """JSON for a script element: no character in it can end that. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def chart_label(text: str) -> str:
    """`text` for a name or title of plotly, which reads a little HTML in them."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def figure_label(text: str) -> str:
    """`text` for matplotlib, which takes what stands between dollar signs for mathematics."""
    return printable(text).replace("$", r"\$")


def source_hash(text: str) -> str:
    """A script or style as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
