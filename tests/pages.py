"""The documentation as the tests read it: its pages, and the code in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from tools import reference

from mezo.config import MeZOConfig
from mezo.estimators import ESTIMATORS
from mezo.objectives import objective_named
from mezo.optimizers import OPTIMIZERS
from mezo.tasks import TASKS
from mezo.util.registry import look_up

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# a command of this repository, perhaps behind variables: "OMP_NUM_THREADS=1 python -m benchmarks replay"
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(mezo .*|python -m benchmarks(?: .*)?)")
_PLACEHOLDER = re.compile(r"\$|.*\.\.\.|[A-Z][A-Z_]*$|[nkKN]$|.*/[A-Z]+\b")


@dataclass(frozen=True)
class Page:
    """One page: its path from the root of the repository, and its Markdown."""

    path: str
    text: str

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt().enable("table").parse(self.text)

    def blocks(self) -> Iterator[tuple[str, str]]:
        """(language, code) of every block of code."""
        for token in self._tokens:
            if token.type in ("fence", "code_block"):
                yield token.info.strip(), token.content

    def inline(self) -> Iterator[str]:
        """Every piece of code in running text."""
        for token in self._inside():
            if token.type == "code_inline":
                yield token.content

    def links(self) -> Iterator[str]:
        for token in self._inside():
            if token.type in ("link_open", "image"):
                yield str(token.attrs["href" if token.type == "link_open" else "src"])

    def _inside(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()

    def commands(self) -> Iterator[list[str]]:
        """Every command line of mezo and of benchmarks, as words: a line of a block, or code in running text."""
        for _, code in self.blocks():
            for line in code.replace("\\\n", " ").splitlines():
                # what a block says of a command stands behind it, in a column of its own
                if found := _COMMAND.fullmatch(re.split(r" {3,}", line.strip())[0]):
                    yield words(found[1])
        for code in self.inline():
            if found := _COMMAND.fullmatch(code):
                yield words(found[1])


def words(line: str) -> list[str]:
    """A command line as a shell has it, up to a redirection; [what may be left out] is taken as given."""
    found = shlex.split(re.sub(r"\[(-[^\]]*)\]", r"\1", line), comments=True)
    ends = [n for n, word in enumerate(found) if word in (">", "|", "&&", ";")]
    return found[: min(ends, default=None)] if ends else found


@cache
def pages() -> tuple[Page, ...]:
    """Those in docs/, those of the repository that a person reads first, those made from the code.

    Not docs/study, which `mezo ablate` wrote as it is.
    """
    files = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "study"]
    files += [ROOT / "README.md", ROOT / "benchmarks/README.md"]
    written = [Page(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in files]
    return (*written, *(Page(f"docs/{path}", make()) for path, make in reference.PAGES.items()))


@cache
def sources() -> str:
    """Everything that a name in the documentation may be a name of."""
    folders = ("src", "tests", "benchmarks")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def navigation(part: Any) -> Iterator[str]:
    """The pages that an entry of mkdocs.yml's nav leads to."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from navigation(inner)


def is_placeholder(text: str) -> bool:
    """Whether it stands for a value: "RUN", "$DATA", "...", "n"."""
    return bool(_PLACEHOLDER.match(text))


def check_value(name: str, value: Any) -> None:
    """Raises MezoError for a value that a setting does not take."""
    if isinstance(value, str) and is_placeholder(value):
        return
    MeZOConfig.build(**{name: value})
    registries = {"estimator": ESTIMATORS, "optimizer": OPTIMIZERS, "task": TASKS}
    if name in registries and not (":" in value or value.endswith(".yaml")):
        look_up(registries[name], value, name)
    if name == "objective" and value != "auto" and not re.match(r"(?!rouge)[\w./]+:", value):
        objective_named(value)
