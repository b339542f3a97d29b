"""A report as one HTML file that asks nobody for anything: styles, charts' library and data inside."""

from importlib.resources import files

from mezo.ablation.report.charts import chart
from mezo.ablation.report.document import ALONE, COLUMNS, Document
from mezo.ablation.report.drawing import COLORS
from mezo.escaping import json_script, source_hash


def render(document: Document) -> str:
    """The page. Every text is escaped by the template; the data of the charts by `json_script`.

    Its Content-Security-Policy runs these scripts alone and loads nothing. plotly sets styles as it draws.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    folder = files("mezo.ablation.report").joinpath("templates")
    charts = {} if document.forest is None else {"differences": chart(document.forest)}
    for section in document.sections:
        charts |= {f"study-{section.number}-{panel.key}": chart(panel) for panel in section.panels}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    drawing = folder.joinpath("report.js").read_text(encoding="utf-8")
    scripts = [get_plotlyjs(), drawing] if charts else [drawing]
    return template.render(
        document=document,
        columns=COLUMNS,
        alone=ALONE,
        scripts=[Markup(script) for script in scripts],
        policy=f"default-src 'none'; script-src {' '.join(map(source_hash, scripts))}; style-src 'unsafe-inline';"
        " img-src data:; base-uri 'none'; form-action 'none'",
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        data=Markup(json_script({"charts": charts, "palette": COLORS})),
    )
