"""A plan as a page: Markdown in the published form, or HTML that needs nothing else."""

from collections.abc import Iterator
from typing import Any

from mezo.ablation.formats.inline_values import encoded, encoded_text, quoted
from mezo.ablation.formats.page import parse_page
from mezo.ablation.plans.plan import Plan, Study
from mezo.ablation.formats.predictions import same
from mezo.escaping import html_text, markdown_prose, source_hash

# The boxes as published: colours of (background, its end, border, heading).
_TRACE = ("#e3f2fd", "#bbdefb", "#2196f3", "#1976d2")
_STUDIES = ("#f3e5f5", "#e1bee7", "#9c27b0", "#7b1fa2")
_STYLE = """<style>
.trajectory-box strong {
  color: #1a1a1a !important;
}
.trajectory-box h3 {
  color: #1a1a1a !important;
}
</style>
"""
_HTML_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
       color-scheme: light dark; overflow-wrap: anywhere; }
section { border-left: 5px solid #9c27b0; padding: 0 1rem; margin: 1.5rem 0; }
pre { white-space: pre-wrap; font: inherit; }
"""
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src {hash}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""

Shown = tuple[str, str | list[str]]  # a field: its key, and a line or the lines of a list below it


def to_markdown(plan: Plan) -> str:
    """The text that `parse_page` makes an equal plan of."""
    for trace in _traces(plan.reasoning):
        for exact in (False, True):
            text = _markdown(plan, trace, exact)
            if same(parse_page, text, plan):
                return text
    raise AssertionError("a plan in JSON reads back as it was")


def to_html(plan: Plan) -> str:
    """The text that `parse_page(..., html=True)` makes an equal plan of."""
    for trace in (plan.reasoning, plan.reasoning and quoted(plan.reasoning)):
        for exact in (False, True):
            text = _html(plan, trace, exact)
            if same(lambda text: parse_page(text, html=True), text, plan):
                return text
    raise AssertionError("a plan in JSON reads back as it was")


def _traces(reasoning: str | None) -> Iterator[str | None]:
    """The reasoning as prose; as JSON. The first that reads back is taken."""
    prose = None if reasoning is None else markdown_prose(reasoning)
    if reasoning is None or prose is not None:
        yield prose
    if reasoning is not None:
        yield quoted(reasoning)


def _markdown(plan: Plan, trace: str | None, exact: bool) -> str:
    head = f"# {_text(plan.title, exact)}\n\n" if plan.title else ""
    boxes = [] if trace is None else [_box(_TRACE, "🧠 Reasoning Trace", trace)]
    parts = ["\n".join(_bullets(_extra(plan.extra, exact)))] if plan.extra else []
    for study in plan.studies:
        heading = f"### {_text(study.name, exact)}"
        parts.append("\n".join((heading, *_bullets(_fields(study, exact)))))
    boxes.append(_box(_STUDIES, "📋 Ablation Plan", "\n\n".join(parts) + "\n"))
    return f"{_STYLE}\n{head}" + "\n".join(boxes)


def _box(colors: tuple[str, str, str, str], heading: str, body: str) -> str:
    background, end, border, ink = colors
    return (
        f'<div style="background: linear-gradient(135deg, {background} 0%, {end} 100%); border-left: 5px solid '
        f"{border}; padding: 20px; margin: 20px 0; border-radius: 8px; box-shadow: 0 2px 8px rgba(0,0,0,0.1); "
        f'color: #1a1a1a;" class="trajectory-box">\n'
        f'<h2 style="color: {ink}; margin-top: 0; margin-bottom: 15px; font-size: 1.3em;">{heading}</h2>\n\n'
        f"{body}\n</div>\n"
    )


def _bullets(fields: list[Shown]) -> Iterator[str]:
    for key, value in fields:
        if isinstance(value, str):
            yield f"- **{key}**: {value}"
        else:
            yield f"- **{key}**: "
            yield from (f"  - {item}" for item in value)


def _html(plan: Plan, trace: str | None, exact: bool) -> str:
    body = f"<h1>{html_text(_text(plan.title, exact))}</h1>\n" if plan.title else ""
    if trace is not None:
        body += f"<section>\n<h2>Reasoning Trace</h2>\n<pre>{html_text(trace)}</pre>\n</section>\n"
    body += "<section>\n<h2>Ablation Plan</h2>\n"
    body += _html_list(_extra(plan.extra, exact)) if plan.extra else ""
    for study in plan.studies:
        body += f"<h3>{html_text(_text(study.name, exact))}</h3>\n" + _html_list(_fields(study, exact))
    title = html_text(plan.title or "Ablation plan")
    return _HTML.format(
        title=title, body=f"{body}</section>\n", style=_HTML_STYLE, hash=source_hash(_HTML_STYLE)
    )


def _html_list(fields: list[Shown]) -> str:
    rows = []
    for key, value in fields:
        if isinstance(value, str):
            shown = html_text(value)
        else:
            shown = f"\n<ul>{''.join(f'<li>{_html_item(item)}</li>' for item in value)}</ul>"
        rows.append(f"<li><strong>{html_text(key)}</strong>: {shown}</li>\n")
    return f"<ul>\n{''.join(rows)}</ul>\n"


def _html_item(item: str) -> str:
    """An item of a list: the key of a mapping's pair stands between two stars."""
    key, bold, value = item[2:].partition("**: ") if item.startswith("**") else ("", "", "")
    return f"<strong>{html_text(key)}</strong>: {html_text(value)}" if bold else html_text(item)


def _fields(study: Study, exact: bool) -> list[Shown]:
    fields: list[Shown] = [
        ("Ablated Part", _text(study.ablated_part, exact)),
        ("Action", study.action),
        ("Replacement", _shown(study.replacement, exact)),
    ]
    plain = not exact and all(encoded_text(m) == m and len(_split(m)) == 1 for m in study.metrics)
    if study.metrics or exact:
        shown = ", ".join(study.metrics) if plain else quoted(list(study.metrics))
        fields.append(("Metrics", shown))
    if study.set is not None:
        fields.append(("Set", quoted(study.set)))
    return fields + _extra(study.extra, exact)


def _extra(extra: dict[str, Any], exact: bool) -> list[Shown]:
    return [(_key(key, exact), _shown(value, exact)) for key, value in extra.items()]


def _key(key: str, exact: bool) -> str:
    shown = key.replace("_", " ").title()
    plain = not exact and key.replace("_", "").isalnum() and key.isascii() and len(key) < 40
    if plain and shown.lower().replace(" ", "_") == key and not key.startswith("_"):
        return shown
    return f"`{quoted(key)[1:-1].replace(':', chr(92) + 'u003a').replace('*', chr(92) + 'u002a')}`"


def _shown(value: Any, exact: bool) -> str | list[str]:
    """none, or a list or mapping below, an entry a line; JSON for what is empty, and for what is exact."""
    if value is None:
        return "None"
    if exact or value in ([], {}):
        return quoted(value)
    if isinstance(value, dict):
        return [f"**{_plain_key(key)}**: {encoded(inner)}" for key, inner in value.items()]
    if isinstance(value, list):
        return [encoded(inner) for inner in value]
    return encoded(value)


def _plain_key(key: str) -> str:
    plain = encoded_text(key) == key and not set(key) & set("*_:`") and len(key) < 50
    return key if plain else _key(key, True)


def _text(text: str, exact: bool) -> str:
    return quoted(text) if exact else encoded_text(text)


def _split(metric: str) -> list[str]:
    from mezo.ablation.plans.fields import split

    return split(metric, ",;")
