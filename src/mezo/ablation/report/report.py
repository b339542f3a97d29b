"""The two reports of an ablation study, from its folder: report.html and report.md with its figures.

report.html is one file that loads nothing and runs nothing. The texts of both are in templates/.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from mezo.ablation.comparison.comparisons import compare
from mezo.ablation.report.charts.drawing import inline_svg, write_figure
from mezo.ablation.report.document import ALONE, COLUMNS, COSTS, Document, document
from mezo.ablation.run import journal
from mezo.ablation.run.folder import RESULTS
from mezo.errors import MezoError
from mezo.util.atomic_files import write_text
from mezo.util.escaping import code_block, code_span, markdown_text
from mezo.util.parsing import printable
from mezo.util.secrets import hidden

HTML, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def check_libraries() -> None:
    """Raises MezoError if a library of the reports is missing. Call it before hours of runs."""
    if missing := [name for name in ("jinja2", "scipy") if find_spec(name) is None]:
        raise MezoError(
            f"the report of an ablation study needs {', '.join(missing)}: pip install 'mezo-llm[ablation]'"
        )


def write_report(folder: Path | str) -> list[Path]:
    """Write FOLDER/report.html, report.md and figures/ from FOLDER/results.jsonl; the paths written.

    Runs that are not finished are left out. Learning curves come from the run folders; a run whose folder is gone is
    still in the tables.

    Raises MezoError if there is no results.jsonl, it holds no finished run, or a library is missing.
    """
    folder = Path(folder)
    check_libraries()
    compared = compare([_shown(line) for line in read_lines(folder)])
    if not any(run.status == "ok" for run in compared.runs):
        failed = next((run.error for run in compared.runs if run.error), None)
        raise MezoError(
            f"{folder}: no finished run to report{f'; the first error: {failed}' if failed else ''}"
        )
    said = document(compared, folder)
    pages = {} if said["differences"] is None else {"differences": (said["differences"],)}
    pages |= {f"study-{s['number']}": s["panels"] for s in said["sections"] if s["panels"]}
    drawn = [write_figure(panels, folder / FIGURES / name) for name, panels in pages.items()]
    write_text(folder / HTML, html(said))
    write_text(folder / MARKDOWN, markdown(said, {name: f"{FIGURES}/{name}.png" for name in pages}))
    return [folder / HTML, folder / MARKDOWN, *chain.from_iterable(drawn)]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The records of FOLDER/results.jsonl. Raises MezoError without any, or if a line is no object."""
    path = folder / RESULTS
    if not path.exists():
        raise MezoError(f"{path}: no such results; give the --output of a `mezo ablate`")
    return journal.read(path)


def html(document: Document) -> str:
    """The page with its charts. The template escapes every text; its Content-Security-Policy runs no script."""
    from markupsafe import Markup

    panels = {} if document["differences"] is None else {"differences": document["differences"]}
    for section in document["sections"]:
        panels |= {f"study-{section['number']}-{panel.key}": panel for panel in section["panels"]}
    charts = {name: Markup(inline_svg(panel, name)) for name, panel in panels.items()}
    return _rendered("report.html.j2", document, charts=charts, policy=_POLICY)


def markdown(document: Document, figures: Mapping[str, str]) -> str:
    """figures: the relative path of each picture, "differences" and "study-N". Every text is escaped."""
    commands = code_block(document["commands"])
    return _rendered("report.md.j2", document, figures=figures, commands=commands)


def _rendered(name: str, document: Document, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    escapes, loader = select_autoescape(["html.j2"]), PackageLoader("mezo.ablation.report")
    look = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=escapes, **look)
    environment.filters |= {"text": markdown_text, "code": lambda text: code_span(text, table=True)}
    shared = {"document": document, "columns": COLUMNS, "alone": ALONE, "costs": COSTS}
    return environment.get_template(name).render(**shared, **values)


def _shown(value: Any) -> Any:
    """`value` with every text printable and without secrets: names and errors come from other people."""
    if isinstance(value, str):
        return hidden(printable(value))
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
