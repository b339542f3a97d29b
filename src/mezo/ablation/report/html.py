"""A report as one HTML file that loads nothing and runs nothing: styles and charts are inside."""

from importlib.resources import files

from mezo.ablation.report.charts.drawing import inline_svg
from mezo.ablation.report.document import ALONE, COLUMNS, COSTS, Document

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render(document: Document) -> str:
    """The page. The template escapes every text; its Content-Security-Policy runs no script and loads nothing."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("mezo.ablation.report").joinpath("templates")
    panels = {} if document.differences is None else {"differences": document.differences}
    panels |= {f"study-{s.number}-{panel.key}": panel for s in document.sections for panel in s.panels}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        document=document,
        columns=COLUMNS,
        alone=ALONE,
        costs=COSTS,
        charts={name: Markup(inline_svg(panel, name)) for name, panel in panels.items()},
        policy=_POLICY,
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
    )
