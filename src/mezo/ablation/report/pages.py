"""A report as one HTML file that loads nothing and runs nothing, and as Markdown. The texts are in templates/."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from mezo.ablation.report.charts.drawing import inline_svg
from mezo.ablation.report.document import ALONE, COLUMNS, COSTS, Document
from mezo.util.escaping import code_block, code_span, markdown_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def html(document: Document) -> str:
    """The page with its charts. The template escapes every text; its Content-Security-Policy runs no script."""
    from markupsafe import Markup

    panels = {} if document.differences is None else {"differences": document.differences}
    panels |= {f"study-{s.number}-{panel.key}": panel for s in document.sections for panel in s.panels}
    charts = {name: Markup(inline_svg(panel, name)) for name, panel in panels.items()}
    style = Markup(_template("report.css"))
    return _rendered("report.html.j2", document, escapes=True, charts=charts, style=style, policy=_POLICY)


def markdown(document: Document, figures: Mapping[str, str]) -> str:
    """figures: the relative path of each picture, "differences" and "study-N". Every text is escaped."""
    commands = code_block(list(document.commands))
    return _rendered("report.md.j2", document, escapes=False, figures=figures, commands=commands)


def _rendered(name: str, document: Document, *, escapes: bool, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=escapes, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text": markdown_text, "code": lambda text: code_span(text, table=True)}
    shared = {"document": document, "columns": COLUMNS, "alone": ALONE, "costs": COSTS}
    return environment.from_string(_template(name)).render(**shared, **values)


def _template(name: str) -> str:
    return files("mezo.ablation.report").joinpath("templates", name).read_text(encoding="utf-8")
