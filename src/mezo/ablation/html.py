"""A report as one HTML file that asks nobody for anything: styles, charts' library and data inside."""

import json
from importlib.resources import files
from typing import Any

from mezo.ablation.charts import chart
from mezo.ablation.document import ALONE, COLUMNS, Document
from mezo.ablation.figures import COLORS


def render(document: Document) -> str:
    """The page. Every text is escaped by the template; the data of the charts by `embedded`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    folder = files("mezo.ablation").joinpath("templates")
    charts = {} if document.forest is None else {"differences": chart(document.forest)}
    for section in document.sections:
        charts |= {f"study-{section.number}-{panel.key}": chart(panel) for panel in section.panels}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        document=document,
        columns=COLUMNS,
        alone=ALONE,
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("report.js").read_text(encoding="utf-8")),
        data=Markup(embedded({"charts": charts, "palette": COLORS})),
        plotly=Markup(get_plotlyjs()) if charts else "",
    )


def embedded(value: Any) -> str:
    """JSON that can stand inside a script element: no character in it can end that."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
