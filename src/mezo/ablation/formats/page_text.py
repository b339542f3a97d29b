"""A plan as a Markdown page to look at. The plan itself is kept as YAML or JSON."""

import json
from typing import Any

from mezo.ablation.plans.plan import Plan
from mezo.util.escaping import markdown_prose, markdown_text


def to_markdown(plan: Plan) -> str:
    parts = [f"# {markdown_text(plan.title)}"] if plan.title else []
    if plan.reasoning is not None:
        trace = markdown_prose(plan.reasoning)
        parts += ["## Reasoning Trace", markdown_text(plan.reasoning) if trace is None else trace]
    parts.append("## Ablation Plan")
    if plan.extra:
        parts.append("\n".join(_item(*pair) for pair in plan.extra.items()))
    for study in plan.studies:
        fields = {name: value for name, value in study.fields.items() if name != "name"}
        fields["metrics"] = ", ".join(study.metrics)
        parts += [f"### {markdown_text(study.name)}", "\n".join(_item(*pair) for pair in fields.items())]
    return "\n\n".join(parts) + "\n"


def _item(name: str, value: Any) -> str:
    head = f"- **{markdown_text(name.replace('_', ' ').title())}**:"
    if not isinstance(value, list | dict):
        return f"{head} {_shown(value)}"
    inner = value if isinstance(value, list) else [f"{key}: {_plain(each)}" for key, each in value.items()]
    return "\n".join((head, *(f"  - {_shown(each)}" for each in inner)))


def _shown(value: Any) -> str:
    return markdown_text(_plain(value))


def _plain(value: Any) -> str:
    return "None" if value is None else value if isinstance(value, str) else json.dumps(value)
