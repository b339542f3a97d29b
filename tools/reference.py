"""The pages of the reference, written from the code when the site is built (a hook of mkdocs).

reference/settings.md   every field of MeZOConfig and the paper's presets
reference/commands.md   every command with its options
contributing.md, changelog.md   the files of the repository

python tools/reference.py PAGE      prints one of them
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rich.text import Text
from typer.main import get_command

from mezo.cli import app
from mezo.cli.options import SETTINGS, described, flags_of, panel_of
from mezo.combinations import RULES
from mezo.config import MeZOConfig, choices_of
from mezo.tasks import TASKS
from mezo.util.registry import names_in

ROOT = Path(__file__).parents[1]

# of settings that are names in a registry
_NAMES = {
    "task": f"{', '.join(TASKS)}, FILE.yaml, module:Class",
}

_WHOLE = r'<span class="option">\1</span>'

_SETTINGS = """# Settings

What a run is made of: the fields of `mezo.MeZOConfig`, of RUN/config.yaml, and of any YAML file that
`--config` reads. Flags win over a file. As options they are the same, except that a list is written by comma,
and `true` and `false` are a flag that is given or not.

    mezo train --config run.yaml --seed 1
"""

_PRESETS = """## The paper's values

`MeZOConfig.paper(family, tuning)`: of the learning rates searched, the middle one of RoBERTa's three and the
larger of OPT's two. The whole grids are on [the paper's page](../paper.md#hyperparameters).
"""

REGISTRIES = {
    "estimators": "mezo.estimators:ESTIMATORS",
    "optimizers": "mezo.optimizers:OPTIMIZERS",
    "objectives": "mezo.objectives:OBJECTIVES",
    "rewards": "mezo.objectives.rewards:REWARDS",
    "tasks": "mezo.tasks:TASKS",
    "metrics": "mezo.metrics:METRICS",
    "tuning modes": "mezo.tuning:TUNING",
    "data formats": "mezo.data.formats:FORMATS",
    "engines": "mezo.engines.registry:ENGINES",
}

_REGISTRIES = """## What there is

The names in each registry. [Contributing](../contributing.md) says how to add one.
"""

_COMBINATIONS = """## What goes with what

Everything else goes together. What does not is refused before a model is loaded.
"""

_COMMANDS = """# Commands

What `--help` prints, in one place. Exit status: 0, done; 2, a mistake, told in one line on stderr; 130,
stopped by Ctrl-C, with everything saved.
"""


def settings() -> str:
    """The page of all settings, in the order and the groups of `mezo train --help`."""
    parts = [_SETTINGS]
    for panel in dict.fromkeys(map(panel_of, SETTINGS)):
        parts.append(f"## {panel}\n")
        rows = []
        for name, field in MeZOConfig.model_fields.items():
            if panel_of(name) == panel:
                flags = " ".join(f"`{flag}`" for flag in _flags_of(name))
                values = f"`{_shown(field.default)}`<br>{_NAMES.get(name) or ', '.join(choices_of(name)) or _values(field)}"
                rows.append((f"`{name}`<br>{flags}", values, _cell(described(name))))
        parts.append(_table(("setting, option", "default, values", "what it is"), rows))
    return "\n".join(
        (*parts, _PRESETS, _presets(), _COMBINATIONS, _combinations(), _REGISTRIES, _registries())
    )


def _combinations() -> str:
    """The table of `mezo.combinations`."""
    rows = [
        (" and ".join(f"`{values}`" for values in rule.when), f"`{rule.needs}`", _cell(rule.why))
        for rule in RULES
    ]
    return _table(("with", "is needed", "because"), rows)


def _registries() -> str:
    """Every registry, with its names."""
    rows = [(what, ", ".join(f"`{name}`" for name in names_in(table))) for what, table in REGISTRIES.items()]
    return _table(("what", "names"), rows)


def _presets() -> str:
    columns = ("tuning", "learning_rate", "epsilon", "weight_decay", "batch_size", "num_steps")
    rows = []
    for family in ("roberta", "opt"):
        for tuning in ("full", "lora", "prefix"):
            values = MeZOConfig.paper(family, tuning)
            rows.append((family, *(_shown(getattr(values, name)) for name in columns)))
    return _table(("family", *(f"`{name}`" for name in columns)), rows)


def commands() -> str:
    """The page of all commands: what each does, its arguments, its own options, examples."""
    parts = [_COMMANDS]
    for path, command in walk(get_command(app), ("mezo",)):
        parts += [f"## {' '.join(path)}\n", _prose(command.help or "") + "\n"]
        taken, rows = [], []
        for p in command.params:
            if p.param_type_name == "argument":
                rows.append((_cell(f"`{p.metavar or p.name.upper()}`"), _cell(p.help or "")))
            elif p.name in SETTINGS and p.rich_help_panel == panel_of(p.name):
                taken.append(p.name)
            else:
                flags = " ".join(f"`{flag}`" for flag in (*p.opts, *p.secondary_opts))
                rows.append((flags, _cell(p.help or "") + _default(p)))
        if taken:
            parts.append(_of_settings(taken))
        if rows:
            parts.append(_table(("argument or option", "what it is"), rows))
        if command.epilog:
            parts.append(_examples(command.epilog))
    return "\n".join(parts)


def _default(option: Any) -> str:
    if option.required:
        return " Required."
    shown = not isinstance(option.default, bool) and isinstance(option.default, str | int | float | Path)
    return f" Default: `{option.default}`." if shown else ""


def _of_settings(taken: list[str]) -> str:
    """Which settings a command has as options; where that is most, which it has not."""
    rest = [name for name in SETTINGS if name not in taken]
    if len(rest) < len(taken):
        but = f" but {', '.join(f'`{name}`' for name in rest)}" if rest else ""
        return f"Every [setting](settings.md){but} is an option.\n"
    return f"[Settings](settings.md): {', '.join(f'`{_flags_of(name)[0]}`' for name in taken)}.\n"


def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from walk(part, (*path, name))


PAGES = {
    "reference/settings.md": settings,
    "reference/commands.md": commands,
    "contributing.md": lambda: (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    "changelog.md": lambda: (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
}


def on_files(files: Any, config: Any) -> Any:
    """mkdocs asks here for pages that are not in docs/."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """mkdocs hands over every page's HTML: options in running text are kept in one piece, for the style sheet."""
    inline = re.compile(r"(?<!<span></span>)(?<!<pre>)<code>([^<\n]*)</code>")
    option = re.compile(r"(?<![^ ])(-[^ ]+)")
    return inline.sub(lambda code: f"<code>{option.sub(_WHOLE, code[1])}</code>", html)


def _flags_of(name: str) -> tuple[str, ...]:
    return tuple("/".join(flags_of(name)).split("/"))


def _values(field: Any) -> str:
    """Type, choices and bounds of a field, as a person would say them."""
    parts = [a for a in _members(field.annotation) if a is not NoneType]
    bounded = [item for part in parts for item in getattr(part, "__metadata__", ())]
    parts = [get_args(part)[0] if hasattr(part, "__metadata__") else part for part in parts]
    text = " or ".join(map(_kind, parts))
    bounds = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {_shown(getattr(m, key))}"
        for m in (*field.metadata, *(each for item in bounded for each in item.metadata))
        for key, sign in bounds.items()
        if getattr(m, key, None) is not None
    ]
    return _cell(", ".join((text, *limits)))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        parts = get_args(annotation)
        return "list of texts" if parts[-1] is ... else f"{len(parts)} whole numbers"
    if get_origin(annotation) is dict:
        return "mapping of names to values"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"2^{value.bit_length() - 1}" if isinstance(value, int) and value >= 2**63 else str(value)


def _plain(marked: str) -> str:
    return Text.from_markup(marked).plain


def _cell(text: str) -> str:
    """Text for a table: no markup of terminals, none of Markdown's."""
    text = " ".join(_plain(text).split())
    for mark in ("\\", "|", "*", "_", "[", "]"):
        text = text.replace(mark, "\\" + mark)
    return _linked(text.replace("<", "&lt;"))


def _prose(text: str) -> str:
    return "\n\n".join(_linked(" ".join(part.split())) for part in _plain(text).split("\n\n"))


def _linked(text: str) -> str:
    """Pages as helps name them, in the repository, become links; options become code."""
    text = re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", text)
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)(?!`)", r"`\1`", text)


def _examples(epilog: str) -> str:
    """The command lines of a help's epilog, as code; other lines as text."""
    lines = []
    for block in _plain(epilog).strip().split("\n\n"):
        if block.startswith("  "):
            lines.append("\n".join(f"    {line[2:]}" for line in block.split("\n")))
        elif block not in ("Example", "Examples", "Start here"):
            lines.append(_prose(block))
    return "\n\n".join(lines) + "\n"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PAGES:
        sys.exit(f"usage: python tools/reference.py {{{','.join(PAGES)}}}")
    print(PAGES[sys.argv[1]]())
