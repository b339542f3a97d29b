"""A report as Markdown. Every text is escaped, so that it is shown as it is."""

from collections.abc import Iterable, Mapping

from mezo.ablation.report.claims import Claim
from mezo.ablation.report.document import ALONE, COLUMNS, COSTS, Document, StudySection
from mezo.escaping import code_block, code_span, markdown_text


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def render(document: Document, figures: Mapping[str, str]) -> str:
    """figures: the relative path of each picture, "differences" and "study-N"."""
    parts = [f"# {markdown_text(document.title)}\n"]
    parts.append(
        "".join(f"- {markdown_text(name)}: {markdown_text(value)}\n" for name, value in document.facts)
    )
    parts.append("\n\n".join(markdown_text(note) for note in document.notes) + "\n")
    if "differences" in figures:
        parts.append(f"![Differences to the baseline]({figures['differences']})\n")
    for heading, found in (*document.verdicts, (COSTS, document.costs)):
        if found:
            parts.append(f"## {heading}\n")
            parts.append("".join(f"- **{_named(c)}** {markdown_text(c.sentence)}\n" for c in found))
    parts += _gaps(document)
    parts += [_section(section, figures) for section in document.sections]
    parts += _end(document)
    return "\n".join(part for part in parts if part)


def _named(claim: Claim) -> str:
    return f"{markdown_text(claim.study)}, {markdown_text(claim.variant)}"


def _gaps(document: Document) -> list[str]:
    parts = []
    if document.missing:
        parts.append("## Failed, stopped or without a number\n")
        parts.append(table(("study", "variant", "what happened"), document.missing))
    if document.unbound:
        parts.append("## Not run: no setting stands for it\n")
        parts.append(table(("study", "asked for", "why"), document.unbound))
    return parts


def _section(section: StudySection, figures: Mapping[str, str]) -> str:
    parts = [f"## {section.number}. {markdown_text(section.name)}\n", f"{markdown_text(section.studied)}\n"]
    if section.asked:
        parts.append(f"Asked for: {markdown_text(', '.join(section.asked))}\n")
    if section.uncomputed:
        parts.append(f"Asked for and not computed: {markdown_text(', '.join(section.uncomputed))}\n")
    if section.settings:
        parts.append(table(("variant", "sets", "note"), section.settings))
    if (picture := figures.get(f"study-{section.number}")) is not None:
        parts.append(f"![Learning curves, memory and time]({picture})\n")
        parts.append(
            "Lines: mean over seeds, band: one standard deviation. Points: means, bars: one standard deviation.\n"
        )
    for group in section.groups:
        parts.append(f"### {markdown_text(group.heading)}\n")
        parts.append(table(COLUMNS, group.rows))
    return "\n".join(parts)


def _end(document: Document) -> list[str]:
    parts = ["## Commands\n", f"{ALONE}\n"]
    parts.append(code_block(list(document.commands)))
    if document.versions:
        parts.append(
            "Versions: "
            + ", ".join(f"{markdown_text(n)} {markdown_text(v)}" for n, v in document.versions)
            + "\n"
        )
    parts.append("## Runs\n")
    lines = ["| study | variant | seed | status | steps | folder |", "|---|---|---|---|---|---|"]
    for *cells, folder in document.runs:
        last = code_span(folder, table=True) if folder else ""
        lines.append(f"| {' | '.join(markdown_text(cell) for cell in cells)} | {last} |")
    parts.append("\n".join(lines) + "\n")
    return parts
