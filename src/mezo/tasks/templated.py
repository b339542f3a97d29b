"""A task asked in other words: the same rows and answers behind a prompt template of one's own."""

import string
from dataclasses import dataclass, fields

from mezo.errors import MezoError
from mezo.tasks.base import MASK, Task, TextExample
from mezo.tasks.row import Row


@dataclass(frozen=True)
class Templated(Task):
    """`inner` with its prompt made by `template`: text with {field} for fields of a row, and {mask},
    once, where a masked model is to answer. A causal model answers at the end.
    """

    inner: Task
    template: str

    def label(self, row: Row) -> int | None:
        return self.inner.label(row)

    def causal(self, row: Row) -> TextExample:
        if "mask" in names_in(self.template):
            raise MezoError(
                f"template {self.template!r}: {{mask}} is for masked models; a causal one answers at the end"
            )
        return self._filled(row, self.inner.causal(row))

    def masked(self, row: Row) -> TextExample:
        if names_in(self.template).count("mask") != 1:
            raise MezoError(f"template {self.template!r}: a masked model needs {{mask}} in it, once")
        return self._filled(row, self.inner.masked(row))

    def _filled(self, row: Row, example: TextExample) -> TextExample:
        parts: list[tuple[str, str]] = []  # (what stands before a field, its value)
        for literal, name in _pieces(self.template):
            value = "" if name is None else MASK if name == "mask" else row.text(name).strip()
            parts.append((literal, value))
        # the first field of the row is what gives way where a masked prompt is too long
        first = next(i for i, (_, name) in enumerate(_pieces(self.template)) if name not in (None, "mask"))
        head = "".join(literal + value for literal, value in parts[:first]) + parts[first][0]
        tail = "".join(literal + value for literal, value in parts[first + 1 :])
        return TextExample(parts[first][1], example.candidates, example.answer, head, tail)


def with_template(task: Task, template: str) -> Task:
    """Raises MezoError if the template names no field, or is not a template."""
    wanted = tuple(dict.fromkeys(name for name in names_in(template) if name != "mask"))
    if not wanted:
        raise MezoError(
            f"template {template!r}: expected the name of a field in braces, such as {{{task.fields[0]}}}"
        )
    own = {f.name: getattr(task, f.name) for f in fields(Task)}
    own["fields"] = tuple(dict.fromkeys((*task.fields, *wanted)))
    return Templated(**own, inner=task, template=template)


def names_in(template: str) -> list[str]:
    return [name for _, name in _pieces(template) if name is not None]


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """(literal text, the field after it or None), in order."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise MezoError(
            f"template {template!r}: {error}; write {{{{ or }}}} for a brace that is meant"
        ) from None
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise MezoError(f"template {template!r}: expected a field's name in braces, found {{{name}}}")
    return [(literal, name) for literal, name, _, _ in parsed]
